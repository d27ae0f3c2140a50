//! remapctl on the same spares as `open`, whose corpus this one takes: `cargo fuzz run remapctl corpus/open`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remap_fuzz::{Edit, commands};

fuzz_target!(|edits: Vec<Edit>| {
    commands::judge(&edits);
});
