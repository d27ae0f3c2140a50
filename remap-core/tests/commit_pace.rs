//! How long one commit of one block holds the owner thread when a million are remapped, with devices that take no time, and which part
//! of that the table takes: `cargo test --release -p remap-core --test commit_pace -- --ignored --nocapture`.

use std::error::Error;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use remap_core::{
    BaseLba, Change, Device, Engine, Env, Event, Extent, FormatPolicy, Geometry, IoStatus, JobKind, Mapping, Move,
    OpenParams, Owner, Passed, Ranges, RemapOn, Slot, SpareBlock, TableWriter, Target,
};
use uuid::Uuid;

const REMAPS: u32 = 1_000_000;
const BASE_BLOCKS: u64 = 1 << 30;
const BLOCK_SIZE: u32 = 4096;
const CHANGES: u64 = 50_000;
const COMMITS: u64 = 10_000;

/// A device that does nothing, at once.
#[derive(Clone, Copy)]
struct Hollow(u64);

impl Device for Hollow {
    type Buffer = Vec<u8>;

    fn geometry(&self) -> Geometry {
        Geometry { block_size: BLOCK_SIZE, blocks: self.0 }
    }

    fn alloc(&self, blocks: usize) -> Result<Vec<u8>, IoStatus> {
        Ok(vec![0; blocks * BLOCK_SIZE as usize])
    }

    async fn read(&self, _lba: u64, buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        (buffer, Ok(()))
    }

    async fn write(&self, _lba: u64, buffer: Vec<u8>) -> (Vec<u8>, Result<(), IoStatus>) {
        (buffer, Ok(()))
    }

    async fn write_zeroes(&self, _lba: u64, _blocks: u64) -> Result<(), IoStatus> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoStatus> {
        Ok(())
    }
}

/// The one thread of this program.
struct Alone {
    began: Instant,
    spawner: LocalSpawner,
}

// SAFETY: there is no other thread, and no reader of a table is ever in the midst of looking while a task runs.
unsafe impl Env for Alone {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn unix_time(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _time: Duration) -> impl Future<Output = ()> + 'static {
        // Nothing that is measured waits for a while to pass.
        futures_util::future::pending()
    }

    async fn grace(&self) {}

    async fn drain(&self) {}

    async fn close(&self, _blocks: Ranges) {}

    async fn open(&self, _blocks: Ranges) {}

    async fn passed(&self) -> Passed {
        Passed::default()
    }

    fn tell(&self, _event: &Event) {}

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // It fails only when the pool has gone, and with it whoever asks.
        let _ = self.spawner.spawn_local(task);
    }
}

/// The median of some times, and their 99th percentile.
struct Pace {
    median: Duration,
    tail: Duration,
}

impl Pace {
    fn of(mut times: Vec<Duration>) -> Pace {
        times.sort_unstable();
        Pace { median: times[times.len() / 2], tail: times[times.len() * 99 / 100] }
    }
}

fn remapped(lba: u64, index: u32) -> Change {
    Change { lba: BaseLba(lba), to: SpareBlock::new(Slot::FIRST, index).map(Mapping::Spare) }
}

/// Single changes of a table in which every `step`th block is remapped, and `next` tells what is remapped then.
fn changes(step: u64, next: &mut impl FnMut(u64) -> u64) -> Pace {
    let mut writer = TableWriter::new(BASE_BLOCKS);
    drop(writer.publish((0..REMAPS).map(|index| remapped(u64::from(index) * step, index)).collect()));
    let one = |number| {
        let change = vec![remapped(next(number), 5)];
        let began = Instant::now();
        let retired = writer.publish(change);
        // SAFETY: there is no other thread.
        unsafe { retired.free() };
        began.elapsed()
    };
    Pace::of((0..CHANGES).map(one).collect())
}

/// Single commits of a set of which every `step`th block is remapped, and `next` tells what is remapped then: from the reservation to
/// the answer, without the data. Now and then one makes a checkpoint, which the tail does not show.
fn commits(step: u64, next: &mut impl FnMut(u64) -> u64) -> Result<Pace, Box<dyn Error>> {
    let mut pool = LocalPool::new();
    let env = Alone { began: Instant::now(), spawner: pool.spawner() };
    let params = OpenParams {
        name: "Remap0".to_owned(),
        set_uuid: None,
        fresh_set_uuid: Uuid::from_u128(1),
        fresh_spare_id: Uuid::from_u128(2),
        base_uuid: Uuid::from_u128(3),
        base_blocks: BASE_BLOCKS,
        md_size: 0,
        format: FormatPolicy::Auto,
        storm_limit: u64::MAX,
        host_id: Uuid::nil(),
        take_over: false,
        given_up: None,
        stated_end: None,
    };
    pool.run_until(async {
        let engine = Engine::open(Hollow(2 * u64::from(REMAPS)), env, params).await?;
        let blocks = (0..u64::from(REMAPS)).map(|number| Extent::new(BaseLba(number * step), 1)).collect();
        let importing = Rc::clone(&engine);
        let import = engine.jobs().begin(JobKind::Import, async move |job| {
            let blocks = Ranges::new(blocks);
            importing.import(&Hollow(BASE_BLOCKS), &blocks, RemapOn::Media, &job).await.map(drop)
        })?;
        import.join().await?;
        let mut times = Vec::new();
        for number in 0..COMMITS {
            let lba = BaseLba(next(number));
            let began = Instant::now();
            let target = engine.reserve(vec![lba]).await?[0];
            if let Target::New(to) = target {
                engine.commit(vec![Move { lba, to }]).await?;
                times.push(began.elapsed());
            }
        }
        assert_eq!(engine.status().remapped, u64::from(REMAPS) + times.len() as u64);
        engine.close().await;
        Ok(Pace::of(times))
    })
}

fn measure(name: &str, step: u64, mut next: impl FnMut(u64) -> u64) -> Result<(), Box<dyn Error>> {
    for (what, pace) in [("change", changes(step, &mut next)), ("commit", commits(step, &mut next)?)] {
        println!("{what}, {name}: median {} ns, p99 {} ns", pace.median.as_nanos(), pace.tail.as_nanos());
    }
    Ok(())
}

#[test]
#[ignore = "measures; nothing is asserted of how long it takes"]
fn how_long_one_commit_holds_the_thread() -> Result<(), Box<dyn Error>> {
    let mut random = SmallRng::seed_from_u64(1);
    let behind = |step: u64| move |number: u64| (u64::from(REMAPS) + number) * step;
    measure("random", 1024, |_| random.random_range(0..BASE_BLOCKS))?;
    measure("every second block", 2, behind(2))?;
    measure("one after the other", 1, behind(1))
}
