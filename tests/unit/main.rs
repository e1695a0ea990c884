//! One part of the product at a time, without a cluster: what it decides, sends, reads and says.

mod decide;
mod ecs_client;
mod fuzz_corpus;
mod karpenter;
mod limiter;
mod node_condition;
mod panic_messages;
mod set_plan;
mod set_select;
mod status;
mod table;
