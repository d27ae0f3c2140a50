//! A connection that gives up at some moment, however slowly bytes come or go.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A connection of which a single read or write can be given a limit.
pub trait Connection: Read + Write {
    /// Limits the reads that follow.
    ///
    /// # Errors
    /// Those of the kernel.
    fn limit_reads(&self, time: Duration) -> io::Result<()>;
    /// Limits the writes that follow.
    ///
    /// # Errors
    /// Those of the kernel.
    fn limit_writes(&self, time: Duration) -> io::Result<()>;
}

impl Connection for UnixStream {
    fn limit_reads(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn limit_writes(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }
}

impl Connection for TcpStream {
    fn limit_reads(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }

    fn limit_writes(&self, time: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(time))
    }
}

/// A connection with a time at which all is over.
pub struct Timed<C> {
    connection: C,
    until: Instant,
}

impl<C: Connection> Timed<C> {
    /// It is over in `time`.
    pub fn new(connection: C, time: Duration) -> Timed<C> {
        Timed { connection, until: Instant::now() + time }
    }

    /// It is over in `time` from now on, and not when it was to be.
    pub fn extend(&mut self, time: Duration) {
        self.until = Instant::now() + time;
    }

    /// The connection.
    pub fn get_ref(&self) -> &C {
        &self.connection
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl<C: Connection> Read for Timed<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection.limit_reads(self.left()?)?;
        self.connection.read(buffer)
    }
}

impl<C: Connection> Write for Timed<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.limit_writes(self.left()?)?;
        self.connection.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()
    }
}
