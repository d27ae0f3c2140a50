//! What the remap table takes of memory, with the directory and with what the allocator adds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use remap_core::{BaseLba, Change, Mapping, Slot, SpareBlock, TableWriter};

/// What glibc keeps beside each allocation.
const HEADER: isize = size_of::<usize>() as isize;

thread_local! {
    /// What this thread has taken and not given back, below zero if others took it; that of the thread that waits for the test is its own.
    static TAKEN: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

/// # Safety
/// `start` is an allocation of the system's.
unsafe fn taken_by(start: *mut u8) -> isize {
    // SAFETY: by contract.
    unsafe { libc::malloc_usable_size(start.cast()) as isize + HEADER }
}

// SAFETY: what is asked for is passed on, and what comes back as well.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that is asked for; an allocation is counted when it is one.
        unsafe {
            let start = System.alloc(layout);
            if !start.is_null() {
                TAKEN.set(TAKEN.get() + taken_by(start));
            }
            start
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe {
            TAKEN.set(TAKEN.get() - taken_by(start));
            System.dealloc(start, layout);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const REMAPS: u32 = 1_000_000;

/// Which block is remapped as the nth one.
type Lba = fn(u64) -> u64;
/// To which spare block.
type Index = fn(u32) -> u32;

/// Bytes that the table takes for each remap, when a million are made one batch after the other.
fn bytes_a_remap(lba: Lba, spare: Index) -> f64 {
    const BASE_BLOCKS: u64 = 1 << 32;
    let before = TAKEN.get();
    let mut writer = TableWriter::new(BASE_BLOCKS);
    let changes: Vec<Change> = (0..REMAPS)
        .map(|index| Change {
            lba: BaseLba(lba(index.into())),
            to: SpareBlock::new(Slot::FIRST, spare(index)).map(Mapping::Spare),
        })
        .collect();
    for part in changes.chunks(1000) {
        let retired = writer.publish(part.to_vec());
        // SAFETY: there is no other thread.
        unsafe { retired.free() }
    }
    drop(changes);
    assert_eq!(writer.counts().remapped, REMAPS.into());
    let bytes = TAKEN.get() - before;
    drop(writer);
    assert_eq!(TAKEN.get(), before, "all of it is given back");
    bytes as f64 / f64::from(REMAPS)
}

/// Evenly, up to one block in 2,048, and in clusters; to spare blocks one after the other, and to any.
#[test]
fn a_million_remaps_take_at_most_16_bytes_each() {
    let cases: [(&str, Lba); 11] = [
        ("one after the other", |i| i),
        ("every second", |i| 2 * i),
        ("every 16th", |i| 16 * i),
        ("every 50th", |i| 50 * i),
        ("every 100th", |i| 100 * i),
        ("every 127th", |i| 127 * i),
        ("every 130th", |i| 130 * i),
        ("every 1,024th", |i| 1024 * i),
        ("every 2,048th", |i| 2048 * i),
        ("in clusters of 100", |i| i / 100 * 100_000 + i % 100),
        ("in clusters of 1,000", |i| i / 1000 * 1_000_000 + i % 1000),
    ];
    // Below a million and prime to it: each spare block once, and none behind the one before.
    let spares: [(&str, Index); 2] = [("in order", |i| i), ("in no order", |i| (i * 4_001) % REMAPS)];
    for ((name, lba), (order, spare)) in cases.into_iter().flat_map(|case| spares.map(|spare| (case, spare))) {
        let bytes = bytes_a_remap(lba, spare);
        println!("{name}, to spare blocks {order}: {bytes:.1} bytes a remap");
        assert!(bytes <= 16.0, "{name}, to spare blocks {order}: {bytes} bytes a remap");
    }
}
