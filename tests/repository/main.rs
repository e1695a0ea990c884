//! What the repository says of itself: documents, manifests, generated files, and the layers and sizes of the source.

mod deployment;
mod docs;
mod generated;
mod layers;
mod monitoring;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
