//! The corpus of the fuzz targets, replayed: every input that ever led to new code satisfies its property.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a property ends at its first surprise"
)]

#[path = "../../fuzz/properties/mod.rs"]
mod properties;

use std::path::Path;

#[test]
fn every_corpus_input_satisfies_its_property() {
    for (name, hold) in properties::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // The name of the input that broke its property, where the test's output ends.
            println!("{}", path.display());
            hold(&bytes);
            inputs += 1;
        }
        assert!(inputs >= 5, "{name}: {inputs} inputs");
    }
}
