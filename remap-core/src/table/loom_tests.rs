//! Publishing and freeing under every interleaving that loom finds. `RUSTFLAGS="--cfg loom" cargo test --lib loom`.
//!
//! The grace period is what it is in production: the writer hears from each reader, behind its last look.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering as LoomOrdering};
use loom::thread;

use super::*;

#[test]
fn readers_never_see_freed_or_half_made_leaves() {
    let mut model = loom::model::Builder::new();
    // Enough for every order of two readers and a writer that matters, and done in seconds.
    model.preemption_bound = Some(3);
    model.check(|| {
        let mut writer = TableWriter::new(LEAF_BLOCKS);
        let first = Change { lba: BaseLba(1), to: SpareIndex::new(7).map(Mapping::Spare) };
        assert!(writer.publish(vec![first]).is_empty());
        let done = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (table, done) = (std::sync::Arc::clone(writer.table()), Arc::clone(&done));
                thread::spawn(move || {
                    let place = table.lookup(BaseLba(1));
                    assert!(place == Place::Spare(SpareIndex::masked(7)) || place == Place::Base(BaseLba(1)));
                    // Release: what was read before comes before the freeing.
                    done.fetch_add(1, LoomOrdering::Release);
                })
            })
            .collect();
        let retired = writer.publish(vec![Change { lba: BaseLba(1), to: None }]);
        while done.load(LoomOrdering::Acquire) < 2 {
            thread::yield_now();
        }
        // SAFETY: both readers have left the table.
        unsafe { retired.free() }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
