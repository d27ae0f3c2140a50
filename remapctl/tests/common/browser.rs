//! Chromium without a window, driven over its DevTools protocol on two pipes: no port, and nothing else to be installed. The end-to-end tests
//! have it as well.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take to say anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last: u64,
    events: Vec<Value>,
    // Removed when the browser has ended.
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-pipe", "--force-device-scale-factor=1", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).unwrap_or_else(|error| panic!("{error}: {message:?}"));
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let commands = child.stdin.take().unwrap();
        let (session, events) = (String::new(), Vec::new());
        let mut browser = Browser { child, commands, messages, session, last: 0, events, _profile: profile };
        let targets = browser.ask("Target.getTargets", json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = browser.ask("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn next(&mut self) -> Value {
        let heard = self.messages.recv_timeout(PATIENCE);
        heard.unwrap_or_else(|error| {
            panic!("no browser answers; install chromium (scripts/setup.sh --dev does), or look why it ended: {error}")
        })
    }

    /// Sends a command, and waits for its answer.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&command).unwrap();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let message = self.next();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens a page, and waits until it and all that it wants is there.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        let answer = self.ask("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{answer}");
        self.loaded();
    }

    /// Clicks the link that a selector finds, and waits until what it leads to is there.
    pub fn follow(&mut self, selector: &str) {
        self.events.clear();
        self.evaluate(&format!("document.querySelector('{selector}').click()"));
        self.loaded();
    }

    /// Waits until the page has loaded itself anew.
    pub fn reloaded(&mut self) {
        self.events.clear();
        self.loaded();
    }

    fn loaded(&mut self) {
        while self.said("Page.loadEventFired").next().is_none() {
            let message = self.next();
            self.events.push(message);
        }
    }

    /// What was told so far of the page that is open.
    pub fn said<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    /// What an expression comes to on the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Asserts that the browser had nothing to complain of.
    pub fn assert_content(&self) {
        for complaint in ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"] {
            assert_eq!(self.said(complaint).next(), None);
        }
    }

    /// A picture of the page as it is now, for people to look at.
    pub fn screenshot(&mut self, file: &Path) {
        let answer = self.ask("Page.captureScreenshot", json!({ "format": "png" }));
        fs::write(file, BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// Whether a colour of the style is on the map.
    pub fn is_drawn(&mut self, colour: &str) -> bool {
        let script = format!(
            "(() => {{
                // The canvas of the page is left as it is: reading it would make it slower.
                const {{ width, height }} = document.getElementById('cells');
                const context = Object.assign(document.createElement('canvas'), {{ width, height }}).getContext('2d', {{ willReadFrequently: true }});
                context.drawImage(document.getElementById('cells'), 0, 0);
                const wanted = getComputedStyle(document.documentElement).getPropertyValue('--{colour}').match(/[0-9a-f]{{2}}/g);
                const [r, g, b] = wanted.map((part) => parseInt(part, 16));
                const {{ data }} = context.getImageData(0, 0, width, height);
                for (let at = 0; at < data.length; at += 4) if (data[at] === r && data[at + 1] === g && data[at + 2] === b) return true;
                return false;
            }})()"
        );
        self.evaluate(&script) == true
    }

    /// Waits until that is so: what follows a change of the style is drawn with the browser's next picture.
    pub fn wait_until_drawn(&mut self, colour: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.is_drawn(colour) {
            assert!(Instant::now() < end, "{colour} is not drawn");
        }
    }

    /// The text of the element with this identity.
    pub fn text(&mut self, id: &str) -> String {
        self.evaluate(&format!("document.getElementById('{id}').textContent")).as_str().unwrap().to_owned()
    }

    /// Moves the mouse, turns its wheel, or presses its button.
    pub fn mouse(&mut self, kind: &str, (x, y): (f64, f64), more: Value) {
        let mut event = json!({ "type": kind, "x": x, "y": y });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask("Input.dispatchMouseEvent", event);
    }

    /// Presses a key.
    pub fn key(&mut self, key: &str) {
        let text = if key.len() == 1 { key } else { "" };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.ask("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "text": text }));
        self.ask("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All its processes end with it, or when nobody speaks to it any more.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.child.wait();
    }
}
