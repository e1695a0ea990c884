//! What the repository says of itself: documents, manifests, generated files, and the layers of the source.

mod deployment;
mod docs;
mod generated;
mod layers;
#[path = "../support/mod.rs"]
mod support;
