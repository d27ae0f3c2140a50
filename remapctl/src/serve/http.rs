//! As much of HTTP/1.1 (RFC 9112) as it takes to answer a GET: one request a connection, of a limited size and within a limited time.
//!
//! Each connection has a thread of its own, up to a limit, so that neither a target that hangs nor a client that is slow keeps others
//! from their answers. Requests are parsed by httparse.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Error as ParseError, Header, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::timed::{Connection, Timed};

/// Between two looks at whether it is to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// How long a client may take to ask, and to read each part of the answer of this size, and all of it.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;
const SENDING: Duration = Duration::from_secs(60);
/// Connections at the same time; others wait until one of them has ended.
const AT_ONCE: usize = 64;
/// Bytes and lines of the head of a request at most.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Bytes behind the head that are waited for, so that the answer is not lost with them.
const MAX_REST: u64 = 64 << 10;

/// What is sent along with everything: nothing is kept.
const HEADERS: &str = "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff";
/// What a browser may do with an answer, unless that has a policy of its own: load nothing from anywhere (the icon of a page is within
/// the page), and run nothing.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
/// For other requests than GET and HEAD.
const NOT_ALLOWED: &str = "405 Method Not Allowed";
/// For who asks for another machine than this one.
const ELSEWHERE: &str = "this is answered only to who asks for localhost or an address like 127.0.0.1, so that no page from elsewhere \
                         can read it; for other names start it with --insecure-listen";

/// An answer.
pub(super) struct Reply {
    /// The code and its name.
    pub(super) status: &'static str,
    /// The type of the body.
    pub(super) kind: &'static str,
    pub(super) body: String,
    /// What a browser may do with it, if that is more than nothing.
    pub(super) policy: Option<String>,
    /// That no other answer as large as this one is in memory meanwhile.
    pub(super) alone: Option<MutexGuard<'static, ()>>,
}

impl Reply {
    /// An answer of which nothing is special.
    pub(super) fn of(status: &'static str, kind: &'static str, body: String) -> Reply {
        Reply { status, kind, body, policy: None, alone: None }
    }

    /// A sentence.
    pub(super) fn text(status: &'static str, body: impl Into<String>) -> Reply {
        Reply::of(status, "text/plain; charset=utf-8", body.into() + "\n")
    }
}

/// Answers whoever connects, with what `answer` has for the path, until it is interrupted. Where it is `local`, only who asks for this
/// machine by a name that no other machine can have.
pub(super) fn serve<A>(listener: &TcpListener, interrupted: &AtomicBool, local: bool, answer: A)
where
    A: Fn(&str) -> Reply + Clone + Send + 'static,
{
    // Each thread has one of these: so it is known how many there are.
    let ticket = Arc::new(());
    while !interrupted.load(Ordering::Relaxed) {
        let coming = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&LOOK)).is_ok_and(|ready| ready > 0);
        if !coming || Arc::strong_count(&ticket) > AT_ONCE {
            if coming {
                thread::sleep(Duration::from_millis(10));
            }
            continue;
        }
        let begun = listener.accept().and_then(|(stream, _)| {
            let (answer, ticket) = (answer.clone(), Arc::clone(&ticket));
            // Who goes away in the middle needs no answer.
            let talk = move || {
                let _ = talk(stream, local, &answer);
                drop(ticket);
            };
            thread::Builder::new().spawn(talk)
        });
        if begun.is_err() {
            // There is no room for it now; it is tried again.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn talk(stream: TcpStream, local: bool, answer: &impl Fn(&str) -> Reply) -> io::Result<()> {
    let mut stream = Timed::new(stream, PATIENCE);
    let mut head = Vec::new();
    let (reply, with_body) = loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..n]);
        if let Some(replied) = reply(&head, local, answer) {
            break replied;
        }
    };
    // To make the answer took its own time.
    stream.extend(PATIENCE);
    let Reply { status, kind, body, policy, alone } = reply;
    let allow = if status == NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
    let policy = policy.as_deref().unwrap_or(POLICY);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}{HEADERS}\r\nContent-Security-Policy: {policy}\r\n\r\n"
    )?;
    if with_body {
        send(&mut stream, body.as_bytes(), (PATIENCE, SENDING))?;
    }
    // Another answer can have its memory.
    drop(body);
    drop(alone);
    stream.extend(PATIENCE);
    stream.get_ref().shutdown(Shutdown::Write)?;
    io::copy(&mut stream.take(MAX_REST), &mut io::sink()).map(drop)
}

/// Sends an answer, however large, as long as the client takes some of it within `patience`, and all within `limit`.
fn send<C: Connection>(stream: &mut Timed<C>, body: &[u8], (patience, limit): (Duration, Duration)) -> io::Result<()> {
    let began = Instant::now();
    body.chunks(CHUNK).try_for_each(|chunk| {
        stream.extend(patience.min(limit.saturating_sub(began.elapsed())));
        stream.write_all(chunk)
    })
}

/// The answer to the request that begins with these bytes, and whether its body is wanted; none as long as the request is not whole.
fn reply(head: &[u8], local: bool, answer: &impl Fn(&str) -> Reply) -> Option<(Reply, bool)> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let refused =
        |status| Some((Reply::text(status, "this is no request that can be answered here: GET / or /metrics"), true));
    match request.parse(head) {
        Ok(Status::Complete(_)) => match (request.method, request.path) {
            (Some("GET" | "HEAD"), Some(_)) if local && !asks_for_this_machine(request.headers) => {
                Some((Reply::text("421 Misdirected Request", ELSEWHERE), true))
            }
            (Some("GET"), Some(path)) => Some((answer(path), true)),
            (Some("HEAD"), Some(path)) => Some((answer(path), false)),
            _ => refused(NOT_ALLOWED),
        },
        Ok(Status::Partial) if head.len() < MAX_HEAD => None,
        Ok(Status::Partial) | Err(ParseError::TooManyHeaders) => refused("431 Request Header Fields Too Large"),
        Err(_) => refused("400 Bad Request"),
    }
}

/// Whether a request is for this machine by its own name or address, as far as it says. A page from elsewhere can have its name lead
/// here, and its browser would let it read the answer; but it cannot be called like this.
fn asks_for_this_machine(headers: &[Header]) -> bool {
    let hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    hosts.map(|header| header.value).all(|host| str::from_utf8(host).is_ok_and(is_this_machine))
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What comes of sending this much to somebody who takes a part of it now and then, and how much of it he gets.
    fn sent(size: usize, pause: Duration, limits: (Duration, Duration)) -> (io::Result<()>, usize) {
        let (here, mut there) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let (mut part, mut all) = (vec![0; CHUNK], 0);
            loop {
                match there.read(&mut part).unwrap() {
                    0 => return all,
                    read => all += read,
                }
                thread::sleep(pause);
            }
        });
        let mut stream = Timed::new(here, limits.0);
        let sent = send(&mut stream, &vec![b'x'; size], limits);
        drop(stream);
        (sent, reader.join().unwrap())
    }

    #[test]
    fn a_slow_client_gets_all_of_a_large_answer_but_not_for_ever() {
        let (second, minute, pause) = (Duration::from_secs(1), Duration::from_secs(60), Duration::from_millis(100));
        let began = Instant::now();
        let (result, taken) = sent(2 << 20, pause, (second, minute));
        assert!(result.is_ok() && taken == 2 << 20, "{result:?}, {taken} bytes");
        assert!(began.elapsed() > second, "else this shows nothing");
        let (result, taken) = sent(2 << 20, pause, (minute, second));
        let kind = result.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind}");
        assert!(taken < 2 << 20, "{taken} bytes");
    }

    #[test]
    fn a_name_that_others_can_have_is_not_this_machine() {
        for host in ["localhost", "LOCALHOST:9556", "127.0.0.1", "127.0.0.1:9556", "127.1.2.3", "[::1]", "[::1]:9556"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in
            ["", "example.com", "localhost.example.com:9556", "127.0.0.1.example.com", "10.0.0.1:9556", "[::2]:1"]
        {
            assert!(!is_this_machine(host), "{host}");
        }
        let (host, other) = (("hOST", "localhost"), ("Host", "example.com"));
        let header = |(name, value): (&'static str, &'static str)| Header { name, value: value.as_bytes() };
        assert!(asks_for_this_machine(&[]));
        assert!(asks_for_this_machine(&[host].map(header)));
        assert!(!asks_for_this_machine(&[host, other].map(header)));
    }
}
