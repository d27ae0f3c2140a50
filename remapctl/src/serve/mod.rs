//! `serve`: how the sets of a running target stand, over HTTP: metrics for Prometheus, and a page for people. It only looks.

mod families;
mod http;
mod metrics;
mod page;

use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use uuid::Uuid;

use crate::cli::ServeArgs;
use crate::error::{Error, Verdict};
use crate::map;
use crate::rpc::answers::{Online, Set};
use crate::rpc::{Client, Failure};
use http::Reply;

/// How long the target may take for each answer. One that hangs does so from the first on, and Prometheus waits longer for ours.
const PATIENCE: Duration = Duration::from_secs(3);

const HTML: &str = "text/html; charset=utf-8";
static ONE_PICTURE: Mutex<()> = Mutex::new(());

/// Runs the command, until it is interrupted.
///
/// # Errors
/// [`Error::NotLoopback`], [`Error::Listen`], [`Error::Stdout`].
pub fn run(args: &ServeArgs, out: &mut impl Write, interrupted: &AtomicBool) -> Result<Verdict, Error> {
    let address = args.listen;
    if !address.ip().is_loopback() && !args.insecure_listen {
        return Err(Error::NotLoopback { address });
    }
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    // Who connected may have gone before it is looked at.
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    writeln!(out, "http://{address}: the sets of the target at {}", args.target.socket.display())?;
    out.flush()?;
    let client = Client::new(&args.target.socket, PATIENCE);
    http::serve(&listener, interrupted, !args.insecure_listen, move |url: &str| reply(&client, url));
    Ok(Verdict::Sound)
}

/// What there is at `url`.
fn reply(client: &Client, url: &str) -> Reply {
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    match path {
        "/" => Reply::of("200 OK", HTML, page::page(client)),
        "/metrics" => match metrics::metrics(client) {
            Ok(body) => Reply::of("200 OK", prometheus::TEXT_FORMAT, body),
            Err(why) => Reply::text("500 Internal Server Error", format!("the metrics cannot be written: {why}")),
        },
        "/map" => online(client).map_or_else(not_told, |sets| match sets.as_slice() {
            [set] => picture(client, set),
            sets => Reply::of("200 OK", HTML, page::maps(client, sets)),
        }),
        _ => match path.strip_prefix("/map/").map(str::parse::<Uuid>) {
            Some(Ok(uuid)) => {
                online(client).map_or_else(not_told, |sets| match sets.iter().find(|set| set.uuid == uuid) {
                    Some(set) => picture(client, set),
                    None => Reply::text("404 Not Found", "the target has no set of this UUID that is online: see /"),
                })
            }
            _ => {
                Reply::text("404 Not Found", "there is nothing here: see / and /metrics, /map, and /map/UUID of a set")
            }
        },
    }
}

/// The sets that are online.
fn online(client: &Client) -> Result<Vec<Online>, Failure> {
    Ok(client.sets()?.into_iter().filter_map(Set::into_online).collect())
}

/// That the target does not say what it was asked.
fn not_told(why: impl ToString) -> Reply {
    Reply::text("502 Bad Gateway", why.to_string())
}

/// The map of a set that is online, as `remapctl map` makes it.
fn picture(client: &Client, set: &Online) -> Reply {
    // A picture can have tens of MiB.
    let Ok(alone) = ONE_PICTURE.try_lock() else {
        return Reply::text("503 Service Unavailable", "a map is being made for somebody else: ask again in a moment");
    };
    let draw = || {
        let mut html = Vec::new();
        map::html::write(&map::live::picture(client, set)?, &mut html)?;
        Ok(html)
    };
    let drawn: Result<_, Error> = draw();
    match drawn.map(String::from_utf8) {
        Ok(Ok(body)) => {
            Reply { policy: Some(map::html::policy()), alone: Some(alone), ..Reply::of("200 OK", HTML, body) }
        }
        Ok(Err(why)) => Reply::text("500 Internal Server Error", why.to_string()),
        Err(why) => not_told(why),
    }
}
