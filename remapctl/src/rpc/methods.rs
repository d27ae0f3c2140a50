//! The calls that the commands make.

use remap_core::ListedExtent;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{Bdev, IoStat, Notification, Set};
use super::{Client, Failure};

/// Extents that are asked for at once: as many as a target gives.
const PAGE: u64 = 16_384;

/// For methods that take no parameters.
const NONE: Option<()> = None;

/// A page of a list of extents.
#[derive(Deserialize)]
struct Page {
    extents: Vec<ListedExtent>,
    next: Option<u64>,
}

#[derive(Deserialize)]
struct IoStats {
    bdevs: Vec<IoStat>,
}

impl Client {
    /// All sets that the target knows, those that are online first.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn sets(&self) -> Result<Vec<Set>, Failure> {
        self.call("bdev_remap_status", NONE)
    }

    /// The sets of this name: the one that is online, or those that wait.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn sets_named(&self, name: &str) -> Result<Vec<Set>, Failure> {
        self.call("bdev_remap_status", Some(json!({ "name": name })))
    }

    /// The extents of a set that is online, ascending, in runs that are as long as they can be, of which no more than a page is in
    /// memory. What changes meanwhile is seen or not. Nothing comes behind an error.
    pub fn extents<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Result<ListedExtent, Failure>> + 'a {
        let mut pages = Pages { client: self, name, next: Some(0), page: Vec::new().into_iter() }.peekable();
        std::iter::from_fn(move || {
            let mut extent = match pages.next()? {
                Ok(extent) => extent,
                failed => return Some(failed),
            };
            while pages.next_if(|next| next.as_ref().is_ok_and(|next| extent.extend(next))).is_some() {}
            Some(Ok(extent))
        })
    }

    /// A bdev by its name.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn bdev(&self, name: &str) -> Result<Bdev, Failure> {
        const METHOD: &str = "bdev_get_bdevs";
        let mut bdevs: Vec<Bdev> = self.call(METHOD, Some(json!({ "name": name })))?;
        bdevs.pop().ok_or_else(|| self.malformed(METHOD, "it is empty"))
    }

    /// What passed through a bdev.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn iostat(&self, name: &str) -> Result<IoStat, Failure> {
        const METHOD: &str = "bdev_get_iostat";
        let mut stats: IoStats = self.call(METHOD, Some(json!({ "names": [name] })))?;
        stats.bdevs.pop().ok_or_else(|| self.malformed(METHOD, "it is empty"))
    }

    /// What happened, from number `first` on, as far as the target remembers.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn notifications(&self, first: u64) -> Result<Vec<Notification>, Failure> {
        self.call("notify_get_notifications", Some(json!({ "id": first })))
    }

    /// Writes a checkpoint; yields its epoch.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn save(&self, name: &str) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Saved {
            epoch: u64,
        }
        self.call("bdev_remap_save", Some(json!({ "name": name }))).map(|Saved { epoch }| epoch)
    }

    /// Releases the storm brake.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn rearm(&self, name: &str) -> Result<(), Failure> {
        self.call("bdev_remap_set_options", Some(json!({ "name": name, "rearm": true }))).map(|_: Value| ())
    }

    /// Begins a scrub of all blocks, at the pace that it has by default.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn scrub(&self, name: &str) -> Result<(), Failure> {
        self.call("bdev_remap_scrub", Some(json!({ "name": name }))).map(|_: Value| ())
    }

    /// Has the scrub that runs end.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub fn cancel_scrub(&self, name: &str) -> Result<(), Failure> {
        self.call("bdev_remap_scrub", Some(json!({ "name": name, "cancel": true }))).map(|_: Value| ())
    }
}

/// Extents as the target has them, page by page.
struct Pages<'a> {
    client: &'a Client,
    name: &'a str,
    /// Where the next page begins, if there is one.
    next: Option<u64>,
    page: std::vec::IntoIter<ListedExtent>,
}

impl Pages<'_> {
    fn load(&mut self, lba: u64) -> Result<(), Failure> {
        const METHOD: &str = "bdev_remap_list";
        let params = json!({ "name": self.name, "lba": lba, "max": PAGE });
        let Page { extents, next } = self.client.call(METHOD, Some(params))?;
        let mut end = lba;
        for extent in &extents {
            // A list that goes backwards might never end.
            let here =
                (extent.lba.0 >= end && extent.num_blocks > 0).then(|| extent.lba.0.checked_add(extent.num_blocks));
            end = here.flatten().ok_or_else(|| self.client.malformed(METHOD, "its extents are not ascending"))?;
        }
        if next.is_some() && extents.is_empty() {
            return Err(self.client.malformed(METHOD, "it goes on, and has nothing"));
        }
        if next.is_some_and(|next| next < end || next <= lba) {
            return Err(self.client.malformed(METHOD, "it goes on before its end"));
        }
        self.next = next;
        self.page = extents.into_iter();
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<ListedExtent, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.page.next() {
                return Some(Ok(extent));
            }
            let lba = self.next.take()?;
            if let Err(failure) = self.load(lba) {
                return Some(Err(failure));
            }
        }
    }
}
