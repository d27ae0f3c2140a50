//! `serve`: how the sets of a running target stand, over HTTP: metrics for Prometheus, and a page for people. It only looks.

mod families;
mod http;
mod metrics;
mod page;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::cli::ServeArgs;
use crate::error::{Error, Verdict};
use crate::rpc::Client;
use http::Reply;

/// How long the target may take for an answer: less than Prometheus waits for ours.
const PATIENCE: Duration = Duration::from_secs(3);

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
    http::serve(&listener, interrupted, move |url: &str| reply(&client, url));
    Ok(Verdict::Sound)
}

/// What there is at `url`.
fn reply(client: &Client, url: &str) -> Reply {
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    match path {
        "/" => Reply { status: "200 OK", kind: "text/html; charset=utf-8", body: page::page(client) },
        "/metrics" => match metrics::metrics(client) {
            Ok(body) => Reply { status: "200 OK", kind: prometheus::TEXT_FORMAT, body },
            Err(why) => Reply::text("500 Internal Server Error", format!("the metrics cannot be written: {why}")),
        },
        _ => Reply::text("404 Not Found", "there is nothing here: see / and /metrics"),
    }
}
