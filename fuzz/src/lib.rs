//! What the fuzz targets share.

pub mod commands;

use std::cell::OnceCell;
use std::ops::{ControlFlow, Deref};

use arbitrary::Arbitrary;
use remap_core::format::{Area, Copy, Layout};
use remap_core::{BaseLba, Error, Extent, IoStatus, Mapping, OpenParams};
use remap_sim::{Disk, Executor, Fault, Medium, SimEngine, Threads, Vbdev, Verb, open_params};

/// Bytes of a page, and of a block.
pub const PAGE: usize = 4096;
/// Size of the spare in blocks.
pub const SPARE_BLOCKS: u64 = 330;
/// Size of the base in blocks.
pub const BASE_BLOCKS: u64 = 256;
/// Where the CRC is in a superblock and in a page.
const CRC: std::ops::Range<usize> = 8..12;

/// Makes the checksum of a superblock or page right, so that what is behind it is looked at.
pub fn fix_crc(page: &mut [u8]) {
    if let Some(field) = page.get_mut(CRC) {
        field.fill(0);
        let crc = crc32c::crc32c(page);
        page[CRC].copy_from_slice(&crc.to_le_bytes());
    }
}

/// How the spare is opened.
pub fn params() -> OpenParams {
    OpenParams { storm_limit: 1 << 20, ..open_params(BASE_BLOCKS) }
}

/// A simulated process, whose tasks end with it: they know their executor, which has them, and would never be freed.
pub struct Process(Executor);

impl Deref for Process {
    type Target = Executor;

    fn deref(&self) -> &Executor {
        &self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Opens what is on `medium`, above a base whose blocks are all bad for writes, those from 200 on for reads, too.
pub fn open(medium: Medium, params: OpenParams) -> (Process, Disk, Result<Vbdev, Error>) {
    let executor = Process(Executor::new());
    let base = Disk::new(&executor, Medium::new(PAGE as u32, BASE_BLOCKS), false);
    base.fail(Fault::new(Verb::Write, 0..BASE_BLOCKS, IoStatus::WRITE_FAULT));
    base.fail(Fault::new(Verb::Read, 200..BASE_BLOCKS, IoStatus::UNRECOVERED_READ));
    let spare = Disk::new(&executor, medium, true);
    let (of, threads) = (spare.clone(), Threads::in_order(&executor));
    let opened = executor.block_on(async move { Vbdev::open(&base, &of, &threads, params).await });
    (executor, spare, opened.expect("opening ends"))
}

/// All that the table holds.
pub fn mappings(engine: &SimEngine) -> Vec<(BaseLba, Mapping)> {
    let mut all = Vec::new();
    let _ = engine.table().visit(Extent::new(BaseLba(0), BASE_BLOCKS), |lba, mapping| {
        all.push((lba, mapping));
        ControlFlow::Continue(())
    });
    all
}

/// A spare with a checkpoint in either area, pages behind the newer one, pending blocks, and a bad spare block.
pub fn valid_image() -> Medium {
    thread_local!(static IMAGE: OnceCell<Medium> = const { OnceCell::new() });
    IMAGE.with(|image| image.get_or_init(make_image).clone())
}

fn make_image() -> Medium {
    let (executor, spare, host) = open(Medium::new(PAGE as u32, SPARE_BLOCKS), params());
    let host = host.expect("an empty spare is formatted");
    let disk = spare.clone();
    executor.block_on(async move {
        for lba in [1, 2, 3, 10, 12] {
            host.write(lba, vec![lba as u8; PAGE]).await.expect("it is relocated");
        }
        host.read(200, 3).await.expect_err("it is bad");
        host.engine.save().await.expect("it is saved");
        let bad = host.engine.layout().data_start.0 + 1;
        disk.fail(Fault::new(Verb::Write, bad..bad + 1, IoStatus::WRITE_FAULT).times(1));
        host.write(2, vec![22; PAGE]).await.expect("it moves on");
        host.write(20, vec![20; PAGE]).await.expect("it is relocated");
    });
    spare.contents()
}

/// A change of a valid spare.
#[derive(Arbitrary, Debug)]
pub struct Edit {
    place: Place,
    at: u16,
    bytes: Vec<u8>,
    fix_crc: bool,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Superblock {
        b: bool,
    },
    Log {
        b: bool,
        area: bool,
        page: u8,
    },
    /// Another page of the log is put there.
    Copied {
        b: bool,
        area: bool,
        page: u8,
        from: u8,
    },
    /// The page is gone.
    Zero {
        b: bool,
        area: bool,
        page: u8,
    },
}

fn edit(medium: &mut Medium, layout: &Layout, edit: &Edit) {
    let copy = |b: &bool| if *b { Copy::B } else { Copy::A };
    let log = |b, area: &bool, page: u8| {
        layout
            .log_page(
                copy(b),
                if *area { Area::One } else { Area::Zero },
                u64::from(page) % u64::from(layout.area_pages),
            )
            .0
    };
    let at = match &edit.place {
        Place::Superblock { b } => layout.superblock(copy(b)).0,
        Place::Log { b, area, page } | Place::Copied { b, area, page, .. } | Place::Zero { b, area, page } => {
            // Mostly those that are there.
            log(b, area, if page % 4 == 3 { *page } else { page % 8 })
        }
    };
    let mut page = match &edit.place {
        Place::Copied { from, area, .. } => medium.block(log(&(from & 1 == 1), &((from & 2 == 2) != *area), from >> 4)),
        Place::Zero { .. } => vec![0; PAGE],
        Place::Superblock { .. } | Place::Log { .. } => medium.block(at),
    };
    let from = usize::from(edit.at) % 640;
    for (to, byte) in page[from..].iter_mut().zip(&edit.bytes) {
        *to = *byte;
    }
    if edit.fix_crc {
        fix_crc(&mut page);
    }
    medium.set_block(at, &page);
}

/// A valid spare with the first of these edits done to it.
pub fn edited(edits: &[Edit]) -> Medium {
    let mut medium = valid_image();
    let layout = Layout::for_spare(PAGE as u32, SPARE_BLOCKS).expect("it is large enough");
    edits.iter().take(12).for_each(|one| edit(&mut medium, &layout, one));
    medium
}
