//! `remapctl serve` on a running target: metrics that Prometheus takes, and pages that a browser shows.

#[path = "../../remapctl/tests/common/browser.rs"]
mod browser;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use browser::Browser;
use e2e::{
    app::App,
    project,
    remapctl::{remapctl, text},
    scene::{Scene, fault, fault_every, write_stamped},
    script,
    wait::wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Remap0 with 300 remapped and 3 pending blocks.
fn scene() -> Scene {
    let bad = [fault_every(3, 0, 900, "write", "write_fault"), fault(5000, 3, "read", "read_error")];
    let scene = Scene::start(&bad);
    let mut host = scene.host();
    write_stamped(&mut host, 0, 900);
    assert!(!host.read(5000, 3).expect("an answer").expect_err("it is bad").ok());
    assert_eq!((scene.count("remapped"), scene.count("pending")), (300, 3));
    scene
}

/// `remapctl serve` as a child.
struct Serve {
    app: App,
    address: String,
}

impl Serve {
    fn start(socket: &Path, log: &Path) -> Serve {
        let mut command = Command::new(script("remapctl"));
        let app = App::spawn(command.args(["serve", "--listen", "127.0.0.1:0", "-s", text(socket)]), log).unwrap();
        let address = wait_for("remapctl serve", LIMIT, || {
            let output = app.output();
            Some(output.split_once("http://")?.1.split_once(": ")?.0.to_owned())
        });
        Serve { app, address }
    }

    /// What comes back for these bytes.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut answer = Vec::new();
        // What is too much it need not read to the end, nor wait until its answer has come.
        let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status line and body of a GET.
    fn get(&self, path: &str) -> (String, String) {
        let answer = self.raw(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer}"));
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics");
        assert!(status.ends_with(" 200 OK"), "{status}");
        body
    }
}

/// The number of a series, by its name and a part of its labels.
fn number(metrics: &str, name: &str, label: &str) -> f64 {
    let line = metrics.lines().find(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(label));
    let line = line.unwrap_or_else(|| panic!("no {name} with {label} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: scripts/setup.sh --dev installs it");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "promtool {args:?}: {said}");
}

#[test]
fn the_metrics_are_what_status_says_and_as_prometheus_wants_them() {
    let mut scene = scene();
    scene.target.rpc("bdev_remap_save", json!({ "name": "Remap0" }));
    scene.target.rpc("bdev_remap_scrub", json!({ "name": "Remap0", "max_mbps": 4000 }));
    assert_eq!(scene.ended("scrub")["state"], "done");
    let serve = Serve::start(&scene.target.socket(), &scene.target.dir().join("serve.log"));
    let metrics = serve.metrics();
    promtool(&["check", "metrics"], &metrics);

    let status = scene.status();
    let uuid = format!("set=\"Remap0\",uuid={}", status["uuid"]);
    assert_eq!(number(&metrics, "bdev_remap_up", ""), 1.0);
    assert_eq!(number(&metrics, "bdev_remap_set_state", "state=\"online\""), 1.0);
    assert_eq!(number(&metrics, "bdev_remap_set_state", "state=\"tripped\""), 0.0);
    let same = |name: &str, label: &str, value: &Value| {
        assert!(value.is_number(), "{name}: {value}");
        assert_eq!(Some(number(&metrics, name, label)), value.as_f64(), "{name}");
    };
    same("bdev_remap_remapped_blocks", &uuid, &status["remapped"]);
    same("bdev_remap_pending_blocks", &uuid, &status["pending"]);
    same("bdev_remap_spare_free_blocks", &uuid, &status["spare"]["free"]);
    same("bdev_remap_last_save_timestamp_seconds", &uuid, &status["last_save_at"]);
    same("bdev_remap_log_sequence", &uuid, &status["sequence"]);
    let counters = &status["counters"];
    same("bdev_remap_rescued_blocks_total", &uuid, &counters["rescued_blocks"]);
    same("bdev_remap_media_errors_total", "operation=\"write\"", &counters["media_errors_write"]);
    same("bdev_remap_failed_requests_total", "operation=\"read\"", &counters["failed_reads"]);
    same("bdev_remap_job_done_blocks", "job=\"scrub\"", &status["jobs"][0]["blocks_done"]);
    assert_eq!(number(&metrics, "bdev_remap_written_bytes_total", &uuid), f64::from(900 * 4096));
    assert_eq!(number(&metrics, "bdev_remap_size_bytes", &uuid), f64::from(64 << 20));
    assert_eq!(number(&metrics, "bdev_remap_metadata_copy_ok", "copy=\"log_b\""), 1.0);

    // The map of the set, which brings the policy under which its own script runs.
    let page = serve.raw(format!("GET /map/{} HTTP/1.0\r\n\r\n", status["uuid"].as_str().unwrap()).as_bytes());
    let summary = format!("{} are remapped, {} pending", status["remapped"], status["pending"]);
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains(&summary), "no {summary}");
    assert_eq!(page.matches("script-src 'sha256-").count(), 2, "in the header and in the document");
    assert!(serve.get("/").1.contains(&format!("map/{}", status["uuid"].as_str().unwrap())));
    // The only one that is online needs no name.
    let (code, map) = serve.get("/map");
    assert!(code.ends_with(" 200 OK") && map.contains(&summary), "{code}: no {summary}");
    assert!(serve.get("/map/00000000-0000-0000-0000-000000000000").0.contains(" 404 "));

    let known: BTreeSet<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let document = fs::read_to_string(project().join("docs/remapctl.md")).unwrap();
    let undocumented: Vec<_> = known.iter().filter(|name| !document.contains(&format!("`{name}`"))).collect();
    assert!(known.len() > 35 && undocumented.is_empty(), "{undocumented:?}");

    // What the files for Prometheus and Grafana ask for is there.
    for file in ["alerts.yml", "dashboard.json"] {
        let asked = fs::read_to_string(project().join("docs/monitoring").join(file)).unwrap();
        let queries = asked.lines().filter(|line| line.trim_start().trim_matches('"').starts_with("expr"));
        let words = queries.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let ours: BTreeSet<_> = words.filter(|word| word.starts_with("bdev_remap_")).collect();
        assert!(ours.len() > 8, "{file}: {ours:?}");
        let unknown: Vec<_> = ours.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }

    // Of two jobs of a kind, the last one is told.
    let first = scene.job("scrub").unwrap();
    scene.target.rpc("bdev_remap_scrub", json!({ "name": "Remap0", "lba": 6000, "num_blocks": 700, "max_mbps": 4000 }));
    let second = scene.ended("scrub");
    assert_eq!((&second["blocks_done"], second["state"].as_str()), (&json!(700), Some("done")), "after {first}");
    let metrics = serve.metrics();
    for (name, field) in [("done_blocks", "blocks_done"), ("planned_blocks", "blocks_total")] {
        let name = format!("bdev_remap_job_{name}");
        assert_ne!(first[field], second[field]);
        assert_eq!(Some(number(&metrics, &name, "job=\"scrub\"")), second[field].as_f64(), "{name}");
        let series = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains("scrub"));
        assert_eq!(series.count(), 1, "{name}");
    }
    promtool(&["check", "metrics"], &metrics);

    // A target that goes is a metric, and one that comes back is met again.
    scene.target.kill9();
    let metrics = serve.metrics();
    assert_eq!(number(&metrics, "bdev_remap_up", ""), 0.0);
    assert!(!metrics.contains("set="), "{metrics}");
    promtool(&["check", "metrics"], &metrics);
    assert!(serve.get("/map").0.contains(" 502 "));
    let (status, page) = serve.get("/");
    assert!(status.ends_with(" 200 OK") && page.contains("no SPDK target listens there"), "{page}");
    scene.start_again(&[]);
    assert_eq!(number(&serve.metrics(), "bdev_remap_remapped_blocks", &uuid), 300.0);
}

#[test]
fn serve_only_looks_and_ends_when_it_is_told_to() {
    let scene = scene();
    let mut serve = Serve::start(&scene.target.socket(), &scene.target.dir().join("serve.log"));
    let (status, page) = serve.get("/");
    assert!(status.ends_with(" 200 OK"), "{status}");
    for part in ["Remap0", "Fault0", "Spare0", "300 remapped, 3 pending, 0 lost", "every copy is whole"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    for elsewhere in ["://", "src=", "url(", "<script", "@import"] {
        assert!(!page.contains(elsewhere), "{elsewhere} is in {page}");
    }
    assert!(serve.get("/nonsense").0.contains(" 404 "));
    assert!(serve.get("/metrics?x=1").0.contains(" 200 "));
    let refused = serve.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(refused.contains(" 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"), "{refused}");
    // Not for a page from elsewhere whose name leads here.
    for (host, code) in [("evil.example:9556", " 421 "), ("127.0.0.1:9556", " 200 "), ("[::1]", " 200 ")] {
        let answer = serve.raw(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(answer.contains(code) && answer.contains("Remap0") == (code == " 200 "), "{host}: {answer}");
    }
    assert!(serve.raw(b"HEAD / HTTP/1.0\r\n\r\n").ends_with("\r\n\r\n"));

    // What is no request, what is too much, and who goes away in the middle.
    let long = [b"GET /".to_vec(), vec![b'x'; 1 << 20], b" HTTP/1.1\r\n\r\n".to_vec()].concat();
    let headers = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(10_000), b"\r\n".to_vec()].concat();
    let wrong = b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec();
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec();
    for bytes in [vec![], b"\0\xff\r\n\r\n".to_vec(), b"GET\r\n\r\n".to_vec(), long, headers, wrong, chunked] {
        serve.raw(&bytes);
    }
    let idle: Vec<_> = (0..50).map(|_| TcpStream::connect(&serve.address).unwrap()).collect();
    assert!(serve.get("/").1.contains("Remap0"));
    drop(idle);

    // The address is taken, and others are not for everybody.
    let (code, _, sentence) = remapctl(&["serve", "--listen", &serve.address]);
    assert!(code == 8 && sentence.contains(&serve.address), "{code}: {sentence}");
    let (code, _, sentence) = remapctl(&["serve", "--listen", "0.0.0.0:9556"]);
    assert!(code == 16 && sentence.contains("--insecure-listen"), "{code}: {sentence}");

    assert!(serve.app.ended().is_none(), "{}", serve.app.output());
    serve.app.signal(Signal::TERM);
    let status = serve.app.wait(LIMIT);
    assert!(status.success(), "{status}: {}", serve.app.output());
}

/// Asserts that the browser asked nobody but `serve`, and had nothing to complain of.
fn assert_only_asked(browser: &Browser, serve: &Serve) {
    let origin = format!("http://{}/", serve.address);
    let asked: Vec<_> = browser.said("Network.requestWillBeSent").map(|event| &event["request"]["url"]).collect();
    let ours = |url: &str| url.starts_with(&origin) || url.starts_with("data:");
    assert!(!asked.is_empty() && asked.iter().all(|url| url.as_str().is_some_and(ours)), "{asked:?}");
    browser.assert_content();
}

/// What a table of the page says in the row that begins with `what`, below the heading of a set.
fn says(browser: &mut Browser, set: &str, what: &str) -> String {
    let script = format!(
        "(() => {{
            const heading = [...document.querySelectorAll('h2')].find((one) => one.textContent.startsWith('{set} '));
            let table = heading;
            while (table.tagName !== 'TABLE') table = table.nextElementSibling;
            const row = [...table.rows].find((one) => one.cells[0].textContent === '{what}');
            return row.cells[1].textContent;
        }})()"
    );
    browser.evaluate(&script).as_str().unwrap().to_owned()
}

#[test]
fn a_browser_shows_the_page_and_the_maps_and_asks_nobody_else() {
    let scene = scene();
    let serve = Serve::start(&scene.target.socket(), &scene.target.dir().join("serve.log"));
    let picture = |name: &str| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut browser = Browser::start();
    let screen = json!({ "width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": false });
    browser.ask("Emulation.setDeviceMetricsOverride", screen);
    let url = |path: &str| format!("http://{}{path}", serve.address);

    browser.open(&url("/"));
    assert_eq!(browser.evaluate("document.title"), "bdev_remap");
    assert_eq!(browser.evaluate("document.querySelector('h2').textContent"), "Remap0 online");
    for (what, value) in [
        ("base", "Fault0"),
        ("spare", "Spare0"),
        ("size", "64.00 MiB, in blocks of 4096 bytes"),
        ("blocks", "300 remapped, 3 pending, 0 lost"),
        ("metadata", "every copy is whole"),
    ] {
        assert_eq!(says(&mut browser, "Remap0", what), value, "{what}");
    }
    // It is laid out: its style counts, and nothing sticks out of the window.
    let green = browser.evaluate("getComputedStyle(document.querySelector('h2 span')).color");
    assert_eq!(green, "rgb(10, 125, 51)");
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
    browser.screenshot(&picture("status.png"));
    // What happens is on it without being asked for: whenever it loads itself anew, which it may have done already when that is looked at.
    let before = says(&mut browser, "Remap0", "failed");
    assert!(!scene.host().read(5001, 1).expect("an answer").expect_err("it is bad").ok());
    let failed = format!("{} reads, 0 writes", scene.status()["counters"]["failed_reads"]);
    assert_ne!(before, failed);
    browser.reloaded();
    assert_eq!(says(&mut browser, "Remap0", "failed"), failed);
    assert_only_asked(&browser, &serve);

    // Its links lead to the map, which draws and answers the pointer, and to the metrics.
    let uuid = scene.status()["uuid"].as_str().unwrap().to_owned();
    let map_is_shown = |browser: &mut Browser, name: &str, counts: &str| {
        assert_eq!(browser.evaluate("document.querySelector('h1').textContent"), name);
        let summary = browser.text("summary");
        assert!(summary.contains(counts), "{summary}");
        let shades = ["remapped-1", "remapped-2", "remapped-3", "remapped-4"];
        assert!(browser.is_drawn("clean") && shades.iter().any(|shade| browser.is_drawn(shade)), "it is drawn");
        assert_only_asked(browser, &serve);
    };
    browser.follow(&format!("a[href=\"map/{uuid}\"]"));
    assert_eq!(browser.evaluate("location.href"), url(&format!("/map/{uuid}")));
    map_is_shown(&mut browser, "Remap0", "300 are remapped, 3 pending, 0 lost");
    assert!(browser.is_drawn("pending"));
    browser.evaluate("document.getElementById('cells').focus()");
    browser.evaluate("document.getElementById('kind').value = 'pending'");
    browser.key("n");
    browser.key("Enter");
    let said = browser.text("said");
    assert!(said.starts_with("LBA 5,000,") && said.contains("pending"), "{said}");
    browser.screenshot(&picture("map-live.png"));
    browser.open(&url("/map"));
    map_is_shown(&mut browser, "Remap0", "300 are remapped, 3 pending, 0 lost");
    browser.open(&url("/"));
    browser.follow("a[href=\"metrics\"]");
    let metrics = browser.evaluate("document.body.textContent");
    assert_eq!(number(metrics.as_str().unwrap(), "bdev_remap_remapped_blocks", "Remap0"), 300.0);

    // With two sets, `/map` is where one chooses.
    for (name, uuid, blocks) in [
        ("Base1", "44444444-4444-4444-8444-444444444444", 4096),
        ("Spare1", "55555555-5555-4555-8555-555555555555", 2048),
    ] {
        let disk = json!({ "name": name, "uuid": uuid, "num_blocks": blocks, "block_size": 4096 });
        scene.target.rpc("bdev_malloc_create", disk);
    }
    let second = json!({ "name": "Remap1", "base_bdev": "Base1", "spare_bdev": "Spare1" });
    scene.target.rpc("bdev_remap_create", second);
    scene.target.rpc("bdev_remap_add", json!({ "name": "Remap1", "lba": 100, "num_blocks": 7 }));
    browser.open(&url("/map"));
    assert_eq!(browser.evaluate("document.querySelectorAll('h2').length"), 2);
    browser.screenshot(&picture("maps.png"));
    let other = scene.target.status("Remap1")["uuid"].as_str().unwrap().to_owned();
    browser.follow(&format!("a[href=\"map/{other}\"]"));
    map_is_shown(&mut browser, "Remap1", "7 are remapped, 0 pending, 0 lost");
    browser.open(&url("/"));
    assert_eq!(says(&mut browser, "Remap1", "blocks"), "7 remapped, 0 pending, 0 lost");
    browser.screenshot(&picture("status-two.png"));
    assert_only_asked(&browser, &serve);

    // Without the target the page says so, also to who has it open.
    let mut scene = scene;
    scene.target.kill9();
    browser.reloaded();
    let text = browser.evaluate("document.querySelector('.bad').textContent");
    assert!(text.as_str().unwrap().contains("no SPDK target listens there"), "{text}");
    assert_only_asked(&browser, &serve);
}

#[test]
fn the_alerts_are_sound_and_fire_when_they_should() {
    let file = |name: &str| project().join("docs/monitoring").join(name);
    promtool(&["check", "rules", text(&file("alerts.yml"))], "");
    promtool(&["test", "rules", text(&file("alerts_test.yml"))], "");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file("dashboard.json")).unwrap()).unwrap();
    // Every query of the dashboard is one.
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 10, "{queries:?}");
    let rules: Vec<_> = queries.iter().map(|query| json!({ "record": "a:b", "expr": query })).collect();
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard.yml");
    fs::write(&folder, rules.to_string()).unwrap();
    promtool(&["check", "rules", "--lint=none", text(&folder)], "");
}

/// All `expr` in a dashboard, with what Grafana puts in for its variables.
fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value.as_str() {
            Some(query) if name == "expr" => {
                queries.push(query.replace("$__rate_interval", "5m").replace("$set", ".*"))
            }
            _ => collect(value, queries),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}
