//! Every input that fuzzing has found worth keeping for opening a spare, given to the commands.

#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../fuzz/src/lib.rs"]
mod remap_fuzz;

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use remap_fuzz::{Edit, commands};

#[test]
fn the_corpus_of_open_is_judged_by_every_command_without_a_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/open");
    let (mut ends, mut mended) = ([0; 3], 0);
    for input in fs::read_dir(corpus).unwrap() {
        let path = input.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // As libfuzzer-sys does.
        let edits = Vec::<Edit>::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap();
        println!("{}", path.display());
        let judged = commands::judge(&edits);
        ends[usize::from(judged.check)] += 1;
        mended += judged.mended;
    }
    println!("{} sound, {} degraded, {} refused; {mended} brought to a state and back", ends[0], ends[1], ends[2]);
    assert!(ends.iter().all(|count| *count > 5) && mended > 5, "{ends:?}, {mended} mended");
}
