//! Why a call to a target did not succeed, as sentences.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

/// The code of JSON-RPC for a method that nobody knows.
const METHOD_NOT_FOUND: i64 = -32601;

/// Why a call did not succeed.
#[derive(Debug, ThisError)]
pub enum Failure {
    /// Nobody listens.
    #[error(
        "{}: no SPDK target listens there ({source}); nothing was done; start it, or give its socket by --socket \
         (the one after -r of spdk_tgt)",
        socket.display()
    )]
    NoTarget {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket may not be used.
    #[error("{}: you may not talk to the target there; nothing was done; run this as root, or as the user of the target", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// Its queue of connections is full.
    #[error("{}: the target takes no more connections; nothing was done; it hangs, or is very busy: see its log", socket.display())]
    Busy {
        /// The socket.
        socket: PathBuf,
    },
    /// No answer in time.
    #[error(
        "{method} at {}: no answer within {seconds} s; the target hangs, or is very busy: see its log, and whether \
         what was asked has been done after all",
        socket.display()
    )]
    Slow {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
        /// How long it was waited.
        seconds: u64,
    },
    /// The connection was closed before the answer was whole.
    #[error("{method} at {}: the target closed the connection ({source}); see whether it still runs, and its log", socket.display())]
    Gone {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than an answer may have.
    #[error(
        "{method} at {}: the answer has more than {mib} MiB, which no SPDK target sends; check that this is the socket of one",
        socket.display()
    )]
    TooLarge {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
        /// How much it may have.
        mib: u64,
    },
    /// It does not know the method.
    #[error(
        "{method} at {}: the target does not know this method; load bdev_remap into it (scripts/spdk does), or the \
         version that remapctl is of",
        socket.display()
    )]
    Unknown {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
    },
    /// It answered with an error.
    #[error("{method} at {}: {message} ({code})", socket.display())]
    Refused {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
        /// A negative errno, or a code of JSON-RPC.
        code: i64,
        /// The sentence.
        message: String,
    },
    /// Something that is no answer.
    #[error(
        "{method} at {}: the answer cannot be understood ({why}); check that this is the socket of an SPDK target, \
         with bdev_remap of the version of remapctl",
        socket.display()
    )]
    Malformed {
        /// What was called.
        method: String,
        /// The socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
}

impl Failure {
    /// That the target answered with this error.
    pub(super) fn refused(socket: &Path, method: &str, code: i64, message: String) -> Failure {
        let (method, socket) = (method.to_owned(), socket.to_owned());
        match code {
            METHOD_NOT_FOUND => Failure::Unknown { method, socket },
            _ => Failure::Refused { method, socket, code, message },
        }
    }

    /// Whether the target has answered that there is no such thing.
    #[must_use]
    pub fn is_no_device(&self) -> bool {
        matches!(self, Failure::Refused { code, .. } if *code == -i64::from(libc::ENODEV))
    }
}
