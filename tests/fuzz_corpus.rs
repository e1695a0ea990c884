//! The corpus of the fuzz targets, replayed: every input that ever led to new code keeps its promise.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a promise ends at its first surprise"
)]

#[path = "../fuzz/promises/mod.rs"]
mod promises;

use std::path::Path;

#[test]
fn every_input_of_the_corpus_keeps_its_promise() {
    for (name, hold) in promises::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // The name of the input that broke its promise, where the test's output ends.
            println!("{}", path.display());
            hold(&bytes);
            inputs += 1;
        }
        assert!(inputs >= 5, "{name}: {inputs} inputs");
    }
}
