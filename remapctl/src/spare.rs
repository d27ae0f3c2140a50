//! A spare that is looked at: opened, its block size found, and what opening its set would come to.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use remap_core::engine::{
    Inspection, Preview, Repair, RepairPlan, SetPreview, identify, inspect, plan_repair, preview, repaired,
};
use remap_core::format::Superblock;
use remap_core::{FormatPolicy, OpenParams, StatedEnd};
use uuid::Uuid;

use crate::buffer::Buffer;
use crate::disk::{Blocks, Disk};
use crate::error::Error;
use crate::in_use;
use crate::progress::Progress;
use crate::runtime::run;

/// Block sizes that are tried where superblock A does not tell, the usual ones first. Others have to be given.
const BLOCK_SIZES: [u32; 10] = [4096, 512, 8192, 520, 4160, 1024, 2048, 16_384, 32_768, 65_536];
/// What block devices have in common.
const SECTOR: u32 = 512;

/// A spare, opened.
pub struct Spare {
    blocks: Blocks,
    progress: Rc<Progress>,
    /// What its superblocks say, if they can be used.
    pub superblock: Option<Superblock>,
}

/// The base that a set is to be opened with, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Base {
    /// Its size in blocks.
    pub blocks: Option<u64>,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// Bytes of metadata that each of its blocks carries.
    pub md_size: Option<u32>,
}

impl Spare {
    /// Opens the spare at `path`, and says on stderr if somebody else has it open.
    ///
    /// # Errors
    /// As [`Disk::open`].
    pub fn open(path: &Path, block_size: Option<u32>) -> Result<Spare, Error> {
        let disk = Rc::new(Disk::open(path)?);
        in_use::warn(&disk);
        let progress = Rc::new(Progress::new(format!("reading {}", path.display()), None));
        let tried = block_size.map_or_else(|| BLOCK_SIZES.to_vec(), |given| vec![given]);
        let mut blocks = Blocks::new(&disk, tried.first().copied().unwrap_or(SECTOR), &progress);
        let mut superblock = None;
        for size in tried.into_iter().filter(|size| !disk.is_block_device() || size % SECTOR == 0) {
            let candidate = Blocks::new(&disk, size, &progress);
            match run(|env| identify(candidate.clone(), env)) {
                Ok(None) => continue,
                Ok(Some(found)) => {
                    let says = if block_size.is_some() { size } else { found.layout.block_size };
                    blocks = Blocks::new(&disk, says, &progress);
                    superblock = Some(found);
                }
                // What speaks against it is told by whoever looks closer; too few blocks may be enough smaller ones.
                Err(remap_core::Error::TooSmall { .. }) => continue,
                Err(_) => blocks = candidate,
            }
            break;
        }
        Ok(Spare { blocks, progress, superblock })
    }

    /// As it was named.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.blocks.disk.path().to_owned()
    }

    /// The device.
    #[must_use]
    pub fn disk(&self) -> &Rc<Disk> {
        &self.blocks.disk
    }

    /// Bytes a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.blocks.block_size
    }

    /// All that is on it but the data.
    ///
    /// # Errors
    /// As [`inspect`].
    pub fn inspect(&self) -> Result<Inspection, remap_core::Error> {
        let inspection = run(|env| inspect(self.blocks.clone(), env));
        self.progress.end();
        inspection
    }

    /// What `bdev_remap_create` would start from, with this base, and at the state of the log that an operator has chosen.
    ///
    /// # Errors
    /// Those with which that would refuse the spare.
    pub fn preview(&self, base: Base, at: Option<StatedEnd>) -> Result<Preview, remap_core::Error> {
        let params = self.params(base, at);
        let previewed = run(|env| preview(self.blocks.clone(), env, &params));
        self.progress.end();
        previewed
    }

    /// What has to be written so that every copy of the metadata is whole, and the set is loaded in the state that an operator has chosen, if
    /// he has; nothing for an empty spare.
    ///
    /// # Errors
    /// As [`plan_repair`].
    pub fn repair_plan(&self, at: Option<StatedEnd>) -> Result<Option<RepairPlan>, remap_core::Error> {
        let params = self.params(Base::default(), at);
        let planned = run(|env| plan_repair(self.blocks.clone(), env, &params));
        self.progress.end();
        planned
    }

    /// What is to be in the place of `repair`.
    ///
    /// # Errors
    /// As [`repaired`].
    pub fn repaired(&self, plan: &RepairPlan, repair: &Repair) -> Result<Buffer, remap_core::Error> {
        run(|env| repaired(self.blocks.clone(), env, plan, repair))
    }

    fn params(&self, base: Base, at: Option<StatedEnd>) -> OpenParams {
        let of = |superblock: &Superblock| OpenParams {
            name: superblock.name.clone(),
            base_uuid: base.uuid.unwrap_or(superblock.base_uuid),
            base_blocks: base.blocks.unwrap_or(superblock.base_blocks),
            md_size: base.md_size.unwrap_or(superblock.md_size),
            ..unknown(at)
        };
        self.superblock.as_ref().map_or_else(|| unknown(at), of)
    }

    /// The set, if it can be opened.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Spare`], [`Error::Empty`].
    pub fn set(&self, base: Base, at: Option<StatedEnd>) -> Result<SetPreview, Error> {
        match self.preview(base, at) {
            Ok(Preview::Set(set)) => Ok(*set),
            Ok(Preview::Format) => Err(Error::Empty { path: self.path() }),
            Err(why) => Err(Error::of_spare(self.path(), why)),
        }
    }
}

/// How a spare is opened of which nothing is known.
fn unknown(stated_end: Option<StatedEnd>) -> OpenParams {
    OpenParams {
        name: "unknown".into(),
        set_uuid: None,
        fresh_set_uuid: Uuid::nil(),
        fresh_spare_id: Uuid::nil(),
        base_uuid: Uuid::nil(),
        base_blocks: 0,
        md_size: 0,
        format: FormatPolicy::Auto,
        storm_limit: 0,
        host_id: Uuid::nil(),
        take_over: false,
        given_up: None,
        stated_end,
    }
}
