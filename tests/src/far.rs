//! A set with remaps in so many regions of its table that looks wait for far memory, so that I/O is put aside for them.

use serde_json::json;

use crate::{
    scene::{BLOCK, Scene, Stack, stack_on_two_reactors},
    wait::wait_until,
};

/// Blocks that a region of the table is for.
pub const REGION_BLOCKS: u64 = 16_384;
/// Regions of the base, a few more than it takes.
pub const REGIONS: u64 = 8200;

/// A stack whose base has so many regions, in a sparse file.
pub fn far_stack() -> Stack {
    let base_mib = (REGIONS * REGION_BLOCKS * BLOCK as u64) >> 20;
    Stack { base_mib, spare_mib: 64, ..stack_on_two_reactors(json!({})) }
}

impl Scene {
    /// Takes block `key` of each region over to the spare. From then on the log says that I/O is put aside, once there is enough of it.
    #[track_caller]
    pub fn become_far(&self, key: u64) {
        self.target.rpc("log_set_flag", json!({ "flag": "bdev_remap" }));
        let blocks: Vec<_> = (0..REGIONS).map(|region| (region * REGION_BLOCKS + key).to_string()).collect();
        for some in blocks.chunks(2000) {
            let report = self.target.rpc("bdev_remap_import", json!({ "name": "Remap0", "extents": some.join(",") }));
            assert_eq!(report["pending"], 0, "{report}");
        }
        assert!(self.count("remapped") >= REGIONS, "{}", self.status());
    }

    /// Waits until something was put aside.
    #[track_caller]
    pub fn wait_for_aside(&self, limit: std::time::Duration) {
        wait_until("I/O that is put aside", limit, || self.target.log().contains("I/O is put aside"));
    }
}
