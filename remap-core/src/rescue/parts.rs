//! Does the parts of a held I/O: each whole, and in halves what fails with a media error, down to single blocks.
//!
//! What is still to be done is a stack of parts. It stays short however large the I/O is: a part that fails is replaced by
//! its halves, and where a part goes is looked up when its turn comes, so that the table is followed while it changes.

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{At, Failed, HostIo, HostOp, Rescue};
use crate::owner::Owner;
use crate::status::IoStatus;
use crate::table::Place;
use crate::units::Extent;

/// Blocks that the table holds and that are looked up as one, at most.
const LONGEST_RUN: u64 = 4096;

/// Consecutive blocks of the I/O.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// In blocks from the start of the I/O.
    pub(super) offset: u64,
    /// Its length in blocks.
    pub(super) blocks: u64,
    /// Where they are; `None`: where the table says.
    pub(super) at: Option<At>,
}

impl Part {
    /// A block, to be done where the table says.
    pub(super) fn block(offset: u64) -> Part {
        Part { offset, blocks: 1, at: None }
    }

    /// The first `blocks` blocks, and the others if there are any.
    fn split(self, blocks: u64) -> (Part, Option<Part>) {
        match self.at.map_or(Some(None), |at| at.plus(blocks).map(Some)) {
            Some(at) if blocks < self.blocks => {
                let rest = Part { offset: self.offset + blocks, blocks: self.blocks - blocks, at };
                (Part { blocks, ..self }, Some(rest))
            }
            _ => (self, None),
        }
    }
}

impl<H: HostIo, O: Owner> Rescue<'_, H, O> {
    /// The whole I/O. If all of it is in one place it has just failed there, so it begins with the halves.
    pub(super) fn all_parts(&self) -> Vec<Part> {
        let range = self.io.range();
        let whole = Part { offset: 0, blocks: range.blocks, at: None };
        let in_one_place = self.table.first_segment(range, LONGEST_RUN).is_some_and(|all| all.blocks == range.blocks);
        let (first, rest) = whole.split(if in_one_place { range.blocks.div_ceil(2) } else { range.blocks });
        rest.into_iter().chain([first]).filter(|part| part.blocks > 0).collect()
    }

    /// Does the parts in `todo`, the last one first and a few at a time, until there are none or as many as `room` failed.
    /// Returns those, in order: single blocks with media errors, parts with others. Of an I/O that was given up, all that is left.
    pub(super) async fn work_off(&self, todo: &mut Vec<Part>, room: usize) -> Vec<Failed> {
        let mut failed = Vec::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let mut alone = None;
            while !self.io.is_given_up()
                && under_way.len() < self.in_flight
                && failed.len() + under_way.len() < room
                && let Some(part) = todo.pop()
            {
                let (part, place) = self.locate(part, todo);
                match place {
                    // One that is alone needs no set of futures, and no memory for it.
                    Ok(at) if under_way.is_empty() && todo.is_empty() => {
                        alone = Some(self.attempt(part, at).await);
                        break;
                    }
                    Ok(at) => under_way.push(self.attempt(part, at)),
                    Err(status) => {
                        let (part, rest) = part.split((room - failed.len() - under_way.len()) as u64);
                        todo.extend(rest);
                        let blocks = part.offset..part.offset + part.blocks;
                        failed.extend(blocks.map(|offset| Failed { part: Part::block(offset), status }));
                    }
                }
            }
            let next = match alone {
                None => under_way.next().await,
                alone => alone,
            };
            let Some((part, at, result)) = next else { break };
            let Err(status) = result else { continue };
            match part.split(part.blocks.div_ceil(2)) {
                (first, Some(second)) if self.is_media(status) => todo.extend([second, first]),
                _ => failed.push(Failed { part: Part { at: Some(at), ..part }, status }),
            }
        }
        if self.io.is_given_up() {
            failed.extend(todo.drain(..).map(|part| Failed { part, status: IoStatus::Aborted }));
        }
        failed.sort_unstable_by_key(|failed| failed.part.offset);
        failed
    }

    /// Where the first blocks of `part` are, or why they cannot be tried at all. The others go back to `todo`.
    fn locate(&self, part: Part, todo: &mut Vec<Part>) -> (Part, Result<At, IoStatus>) {
        if let Some(at) = part.at {
            return (part, Ok(at));
        }
        let range = Extent::new(self.block(part.offset), part.blocks);
        let Some(segment) = self.table.first_segment(range, LONGEST_RUN) else {
            return (part, Ok(At::Base(range.lba)));
        };
        let (part, rest) = part.split(segment.blocks);
        todo.extend(rest);
        let reads = self.io.op() == HostOp::Read;
        let at = match segment.place {
            Place::Base(lba) => Ok(At::Base(lba)),
            Place::Spare(index) => Ok(At::Spare(index)),
            Place::Pending(lba) if reads => Ok(At::Base(lba)),
            Place::Lost(_) if reads => Err(IoStatus::UNRECOVERED_READ),
            // Nothing is tried on the base, and a lost block is filled: the owner knows which.
            Place::Pending(_) | Place::Lost(_) => Err(IoStatus::WRITE_FAULT),
        };
        (part, at)
    }

    /// Issues a part, and counts the media error of a single block.
    async fn attempt(&self, part: Part, at: At) -> (Part, At, Result<(), IoStatus>) {
        let result = match self.io.is_given_up() {
            true => Err(IoStatus::Aborted),
            false => self.io.issue(part.offset, part.blocks, at).await,
        };
        if part.blocks == 1 && result.is_err_and(|status| self.is_media(status)) {
            self.count_media_error(at);
        }
        (part, at, result)
    }
}
