//! What the fuzz targets share.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use remap_core::sim::{Executor, FaultKind, Medium, SimDevice, SimEnv, SimHost};
use remap_core::{BaseLba, Engine, Error, Extent, FormatPolicy, IoStatus, Mapping, OpenParams, RemapOn};
use uuid::Uuid;

/// Bytes of a page, and of a block.
pub const PAGE: usize = 4096;
/// Size of the spare in blocks.
pub const SPARE_BLOCKS: u64 = 330;
/// Size of the base in blocks.
pub const BASE_BLOCKS: u64 = 256;
/// Where the CRC is in a superblock and in a page.
const CRC: std::ops::Range<usize> = 8..12;

/// An engine on a simulated spare.
pub type FuzzEngine = Engine<SimDevice, SimEnv>;

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
    OpenParams {
        name: "Remap0".into(),
        set_uuid: None,
        fresh_set_uuid: Uuid::from_u128(1),
        fresh_spare_id: Uuid::from_u128(2),
        base_uuid: Uuid::from_u128(3),
        base_blocks: BASE_BLOCKS,
        md_size: 0,
        format: FormatPolicy::Auto,
        storm_limit: 1 << 20,
    }
}

/// Opens what is on `medium`.
pub fn open(medium: Medium) -> (Executor, SimDevice, Result<Rc<FuzzEngine>, Error>) {
    let executor = Executor::new();
    let spare = SimDevice::new(medium, true);
    let opened = executor.block_on(Engine::open(spare.clone(), SimEnv::new(&executor), params()));
    (executor, spare, opened.expect("opening ends"))
}

/// All that the table holds.
pub fn mappings(engine: &FuzzEngine) -> Vec<(BaseLba, Mapping)> {
    let mut all = Vec::new();
    let _ = engine.table().visit(Extent::new(BaseLba(0), BASE_BLOCKS), |lba, mapping| {
        all.push((lba, mapping));
        ControlFlow::Continue(())
    });
    all
}

/// A host on the engine; every block of its base is bad for writes, those from 200 on for reads, too.
pub fn host(engine: &Rc<FuzzEngine>, spare: &SimDevice) -> SimHost {
    let base = SimDevice::new(Medium::new(PAGE as u32, BASE_BLOCKS), false);
    base.fail(FaultKind::Write, 0, BASE_BLOCKS, IoStatus::WRITE_FAULT, u64::MAX);
    base.fail(FaultKind::Read, 200, BASE_BLOCKS, IoStatus::UNRECOVERED_READ, u64::MAX);
    SimHost { engine: Rc::clone(engine), base, spare: spare.clone(), remap_on: RemapOn::Media }
}

/// A spare with a checkpoint in either area, pages behind the newer one, pending blocks, and a bad spare block.
pub fn valid_image() -> Medium {
    thread_local!(static IMAGE: OnceCell<Medium> = const { OnceCell::new() });
    IMAGE.with(|image| image.get_or_init(make_image).clone())
}

fn make_image() -> Medium {
    let (executor, spare, engine) = open(Medium::new(PAGE as u32, SPARE_BLOCKS));
    let host = host(&engine.expect("an empty spare is formatted"), &spare);
    executor.block_on(async move {
        for lba in [1, 2, 3, 10, 12] {
            host.write(lba, vec![lba as u8; PAGE]).await.expect("it is relocated");
        }
        host.read(200, 3).await.expect_err("it is bad");
        host.engine.save().await.expect("it is saved");
        let bad = host.engine.data_start() + 1;
        host.spare.fail(FaultKind::Write, bad, bad + 1, IoStatus::WRITE_FAULT, 1);
        host.write(2, vec![22; PAGE]).await.expect("it moves on");
        host.write(20, vec![20; PAGE]).await.expect("it is relocated");
    });
    spare.contents()
}
