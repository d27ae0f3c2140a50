//! A look at all sets of a target, for those that show how they stand.

use super::answers::{Bdev, IoStat, Set};
use super::{Client, Failure};

/// A set, and its bdev where there is one.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The set.
    pub set: Set,
    /// Its bdev.
    pub bdev: Option<Bdev>,
    /// What passed through that.
    pub io: Option<IoStat>,
}

impl Client {
    /// All sets, those that are online first. What goes in the midst of it is seen without its bdev.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn look(&self) -> Result<Vec<Seen>, Failure> {
        let see = |set: Set| {
            let Some(name) = set.online().map(|online| &online.name) else {
                return Ok(Seen { set, bdev: None, io: None });
            };
            let (bdev, io) = (there(self.bdev(name))?, there(self.iostat(name))?);
            Ok(Seen { set, bdev, io })
        };
        self.sets()?.into_iter().map(see).collect()
    }
}

/// What was asked of a bdev, if that is there.
fn there<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(failure) if failure.is_no_device() => Ok(None),
        answer => answer.map(Some),
    }
}
