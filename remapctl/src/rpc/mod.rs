//! A client of SPDK's JSON-RPC 2.0 over the Unix socket of a running target.
//!
//! Each call has a connection of its own: a target that was started again is met without further ado. An answer is read only as far
//! as it goes, within a time limit and of a limited size. What the methods of bdev_remap answer is in [`answers`], the calls that
//! the commands make are in [`methods`].

pub mod answers;
mod failure;
pub mod look;
pub mod methods;

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::timed::Timed;
pub use failure::Failure;

/// Where SPDK's applications listen unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/tmp/spdk.sock";
/// How long the answer to an operator may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// No answer of SPDK is larger (`SPDK_JSONRPC_SEND_BUF_SIZE_MAX`).
const MAX_ANSWER: u64 = 32 << 20;

/// A target, by its socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    limit: Duration,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'a str,
    id: u32,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

impl Client {
    /// The target that listens at `socket`; it is not asked anything yet. No call takes longer than `limit`.
    #[must_use]
    pub fn new(socket: &Path, limit: Duration) -> Client {
        Client { socket: socket.to_owned(), limit }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls `method`; `None` if it takes no parameters.
    ///
    /// # Errors
    /// All of [`Failure`].
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: Option<impl Serialize>) -> Result<T, Failure> {
        let stream = connected(&self.socket).map_err(|source| self.no_target(source))?;
        let mut stream = Timed::new(stream, self.limit);
        let request = Request { jsonrpc: "2.0", id: 1, method, params };
        let sent = serde_json::to_vec(&request).map_err(io::Error::from).and_then(|text| stream.write_all(&text));
        sent.map_err(|source| self.unanswered(method, source))?;

        let mut reader = BufReader::with_capacity(1 << 16, stream.take(MAX_ANSWER));
        // Ends behind the answer, and does not wait for more.
        let answer = Answer::<T>::deserialize(&mut serde_json::Deserializer::from_reader(&mut reader));
        match answer {
            Ok(Answer { error: Some(Refusal { code, message }), .. }) => {
                Err(Failure::refused(&self.socket, method, code, message))
            }
            Ok(Answer { result: Some(result), .. }) => Ok(result),
            Ok(_) => Err(self.malformed(method, "it has neither a result nor an error")),
            Err(error) if error.is_io() => Err(self.unanswered(method, error.into())),
            Err(error) if error.is_eof() && reader.get_ref().limit() == 0 => {
                Err(Failure::TooLarge { method: method.to_owned(), socket: self.socket.clone(), mib: MAX_ANSWER >> 20 })
            }
            Err(error) if error.is_eof() => Err(self.unanswered(method, io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.malformed(method, error)),
        }
    }

    fn no_target(&self, source: io::Error) -> Failure {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock => Failure::Busy { socket },
            io::ErrorKind::PermissionDenied => Failure::Forbidden { socket },
            _ => Failure::NoTarget { socket, source },
        }
    }

    fn unanswered(&self, method: &str, source: io::Error) -> Failure {
        let (method, socket) = (method.to_owned(), self.socket.clone());
        match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Failure::Slow { method, socket, seconds: self.limit.as_secs() }
            }
            _ => Failure::Gone { method, socket, source },
        }
    }

    fn malformed(&self, method: &str, why: impl ToString) -> Failure {
        Failure::Malformed { method: method.to_owned(), socket: self.socket.clone(), why: why.to_string() }
    }
}

/// Connects without waiting: a target that hangs takes no more connections than its queue has room for.
fn connected(socket: &Path) -> io::Result<UnixStream> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&fd, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
