//! One queue pair of an NVMe/TCP controller: commands go out, completions come back, in any order.

use std::{
    collections::HashMap,
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    Error, Status,
    pdu::{self, Pdu, Sqe},
};

/// Data up to here travels in the capsule on an I/O queue. It is what the target's transport is given as `in_capsule_data_size`.
pub const IN_CAPSULE: usize = 4096;
/// The connect command's data is in the capsule, always.
const IN_CAPSULE_ADMIN: usize = 8192;

struct Pending {
    to_target: Vec<u8>,
    from_target: Vec<u8>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Completion {
    /// Which command, as [`Queue::submit`] numbered it.
    pub cid: u16,
    /// The NVMe status.
    pub status: Status,
    /// Dwords 0 and 1 of the completion.
    pub result: u64,
    /// What the command read.
    pub data: Vec<u8>,
}

/// A queue pair: one TCP connection. Every wait on it ends within 30 s.
pub struct Queue {
    stream: TcpStream,
    in_capsule: usize,
    max_h2c: usize,
    next_cid: u16,
    pending: HashMap<u16, Pending>,
}

impl Queue {
    pub(super) fn open(address: SocketAddr, admin: bool) -> Result<Queue, Error> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&pdu::ic_req())?;
        let answer = Pdu::read(&mut stream)?;
        if answer.kind != pdu::IC_RESP {
            return Err(Error::Protocol(format!("PDU type {} instead of ICResp", answer.kind)));
        }
        let max_h2c = (answer.u32(12) as usize).max(4096);
        let in_capsule = if admin { IN_CAPSULE_ADMIN } else { IN_CAPSULE };
        Ok(Queue { stream, in_capsule, max_h2c, next_cid: 0, pending: HashMap::new() })
    }

    /// Sends a command with `data` for the target, or room for `read` bytes from it. Returns its number.
    pub fn submit(&mut self, sqe: Sqe, data: &[u8], read: usize) -> Result<u16, Error> {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(1);
        let in_capsule = !data.is_empty() && data.len() <= self.in_capsule;
        let sqe = match (data.len(), read) {
            (0, 0) => sqe,
            (0, read) => sqe.by_transport(read as u32),
            (n, _) if in_capsule => sqe.in_capsule(n as u32),
            (n, _) => sqe.by_transport(n as u32),
        };
        let sqe = sqe.u16(2, cid);
        self.stream.write_all(&pdu::encode(pdu::CAPSULE_CMD, 0, &sqe.0, if in_capsule { data } else { &[] }))?;
        let to_target = if in_capsule { Vec::new() } else { data.to_vec() };
        self.pending.insert(cid, Pending { to_target, from_target: vec![0; read] });
        Ok(cid)
    }

    /// Commands that were sent and have not completed.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Waits for the next completion, whichever command it is of.
    pub fn complete(&mut self) -> Result<Completion, Error> {
        loop {
            let pdu = Pdu::read(&mut self.stream)?;
            match pdu.kind {
                pdu::CAPSULE_RESP => {
                    let result = u64::from(pdu.u32(8)) | u64::from(pdu.u32(12)) << 32;
                    return self.finish(pdu.u16(20), Status::from_cqe(pdu.u16(22)), result);
                }
                pdu::C2H_DATA => {
                    let (cid, offset) = (pdu.u16(8), pdu.u32(12) as usize);
                    let room = self.of(cid)?.from_target.get_mut(offset..offset + pdu.data.len());
                    room.ok_or_else(|| Error::Protocol(format!("data beyond the buffer of command {cid}")))?
                        .copy_from_slice(&pdu.data);
                    if pdu.flags & pdu::FLAG_SUCCESS != 0 {
                        return self.finish(cid, Status::SUCCESS, 0);
                    }
                }
                pdu::R2T => self.send_data(&pdu)?,
                pdu::C2H_TERM => {
                    return Err(Error::Protocol(format!("the target ended the connection: {:02x?}", pdu.header)));
                }
                kind => return Err(Error::Protocol(format!("unexpected PDU type {kind}"))),
            }
        }
    }

    /// Sends a command and waits for its completion; nothing else may be outstanding.
    pub fn run(&mut self, sqe: Sqe, data: &[u8], read: usize) -> Result<Completion, Error> {
        let cid = self.submit(sqe, data, read)?;
        let completion = self.complete()?;
        if completion.cid != cid {
            return Err(Error::Protocol(format!("completion of command {} instead of {cid}", completion.cid)));
        }
        Ok(completion)
    }

    fn of(&mut self, cid: u16) -> Result<&mut Pending, Error> {
        self.pending.get_mut(&cid).ok_or_else(|| Error::Protocol(format!("no command {cid} is outstanding")))
    }

    fn finish(&mut self, cid: u16, status: Status, result: u64) -> Result<Completion, Error> {
        self.of(cid)?;
        let data = self.pending.remove(&cid).map(|pending| pending.from_target).unwrap_or_default();
        Ok(Completion { cid, status, result, data })
    }

    fn send_data(&mut self, r2t: &Pdu) -> Result<(), Error> {
        let (cid, tag, offset, length) = (r2t.u16(8), r2t.u16(10), r2t.u32(12) as usize, r2t.u32(16) as usize);
        let max_h2c = self.max_h2c;
        let part = self.of(cid)?.to_target.get(offset..offset + length).map(<[u8]>::to_vec);
        let part = part.ok_or_else(|| Error::Protocol(format!("R2T beyond the data of command {cid}")))?;
        let chunks = part.chunks(max_h2c).count();
        for (i, chunk) in part.chunks(max_h2c).enumerate() {
            let at = (offset + i * max_h2c) as u32;
            self.stream.write_all(&pdu::h2c_data(cid, tag, at, chunk, i + 1 == chunks))?;
        }
        Ok(())
    }
}
