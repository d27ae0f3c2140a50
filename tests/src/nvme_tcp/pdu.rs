//! The PDUs of NVMe/TCP (NVM Express TCP Transport Specification, section 3.6) as far as a host without digests needs them.
//!
//! All numbers are little-endian. Common header: type, flags, header length, data offset (1 byte each), PDU length (4 bytes).

use std::io::{self, Read};

pub const IC_REQ: u8 = 0x00;
pub const IC_RESP: u8 = 0x01;
pub const C2H_TERM: u8 = 0x03;
pub const CAPSULE_CMD: u8 = 0x04;
pub const CAPSULE_RESP: u8 = 0x05;
pub const H2C_DATA: u8 = 0x06;
pub const C2H_DATA: u8 = 0x07;
pub const R2T: u8 = 0x09;

/// The last PDU of a transfer.
pub const FLAG_LAST: u8 = 0x04;
/// The command succeeded, and no capsule follows.
pub const FLAG_SUCCESS: u8 = 0x08;

/// Bytes of a submission queue entry.
pub const SQE: usize = 64;

/// A PDU as it came: header (with the common one) and data.
pub struct Pdu {
    pub kind: u8,
    pub flags: u8,
    pub header: Vec<u8>,
    pub data: Vec<u8>,
}

impl Pdu {
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.header[at], self.header[at + 1]])
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.header[at], self.header[at + 1], self.header[at + 2], self.header[at + 3]])
    }

    /// Reads the next PDU.
    pub fn read(from: &mut impl Read) -> io::Result<Pdu> {
        let mut common = [0; 8];
        from.read_exact(&mut common)?;
        let [kind, flags, hlen, pdo, ..] = common;
        let plen = u32::from_le_bytes([common[4], common[5], common[6], common[7]]) as usize;
        let (hlen, pdo) = (hlen as usize, pdo as usize);
        // The longest answer carries what the longest command may ask for; more is no NVMe/TCP.
        if hlen < 8 || plen < hlen || plen > 64 << 20 || (plen > hlen && (pdo < hlen || pdo > plen)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("bad PDU header {common:02x?}")));
        }
        let mut rest = vec![0; plen - 8];
        from.read_exact(&mut rest)?;
        let data = if plen > hlen { rest.split_off(pdo - 8) } else { Vec::new() };
        rest.truncate(hlen - 8);
        let mut header = common.to_vec();
        header.extend(rest);
        Ok(Pdu { kind, flags, header, data })
    }
}

/// The common header in front of `specific`, and the data behind it.
pub fn encode(kind: u8, flags: u8, specific: &[u8], data: &[u8]) -> Vec<u8> {
    let hlen = 8 + specific.len();
    let pdo = if data.is_empty() { 0 } else { hlen as u8 };
    let mut bytes = vec![kind, flags, hlen as u8, pdo];
    bytes.extend(((hlen + data.len()) as u32).to_le_bytes());
    bytes.extend(specific);
    bytes.extend(data);
    bytes
}

/// ICReq: format 0, no alignment, no digests, one R2T at a time.
pub fn ic_req() -> Vec<u8> {
    encode(IC_REQ, 0, &[0; 120], &[])
}

/// One H2CData PDU: `data` is the part of command `cid` at `offset` (bytes), asked for under `tag`.
pub fn h2c_data(cid: u16, tag: u16, offset: u32, data: &[u8], last: bool) -> Vec<u8> {
    let mut specific = Vec::with_capacity(16);
    specific.extend(cid.to_le_bytes());
    specific.extend(tag.to_le_bytes());
    specific.extend(offset.to_le_bytes());
    specific.extend((data.len() as u32).to_le_bytes());
    specific.extend([0; 4]);
    encode(H2C_DATA, if last { FLAG_LAST } else { 0 }, &specific, data)
}

/// A submission queue entry in the making.
#[derive(Clone)]
pub struct Sqe(pub [u8; SQE]);

impl Sqe {
    /// An entry with this opcode and zeroes otherwise.
    pub fn new(opcode: u8) -> Sqe {
        let mut sqe = Sqe([0; SQE]);
        sqe.0[0] = opcode;
        sqe.0[1] = 0x40; // PSDT: the data pointer is an SGL
        sqe
    }

    /// Puts one byte at offset `at`.
    #[must_use]
    pub fn byte(mut self, at: usize, value: u8) -> Sqe {
        self.0[at] = value;
        self
    }

    /// Puts 2 bytes at offset `at`.
    #[must_use]
    pub fn u16(mut self, at: usize, value: u16) -> Sqe {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Puts 4 bytes at offset `at`.
    #[must_use]
    pub fn u32(mut self, at: usize, value: u32) -> Sqe {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Puts 8 bytes at offset `at`.
    #[must_use]
    pub fn u64(mut self, at: usize, value: u64) -> Sqe {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// SGL 1: `length` bytes that follow in the capsule.
    pub fn in_capsule(self, length: u32) -> Sqe {
        self.u32(32, length).byte(39, 0x01)
    }

    /// SGL 1: `length` bytes that the transport moves.
    pub fn by_transport(self, length: u32) -> Sqe {
        self.u32(32, length).byte(39, 0x5a)
    }
}
