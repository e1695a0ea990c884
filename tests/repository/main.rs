//! What the repository says of itself: documents, manifests, generated files, and the layers and sizes of the source.

mod architecture;
mod book;
mod commands;
mod deployment;
mod docs;
mod generated;
mod gitops;
mod layers;
mod monitoring;
mod proof;
mod recording;
mod reference;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
