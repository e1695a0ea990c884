//! What the operator promises, on a real cluster against the simulated cloud: one control plane and one operator for all tests,
//! and for each test a cloud, an account and a namespace of its own. What starts, ends or counts an operator is in tests/process.

mod accounts;
mod bad_input;
mod error_codes;
mod karpenter;
mod kstatus;
mod kubectl;
mod leave_codes;
mod lost_answers;
mod membership;
mod plugin;
mod plugin_docs;
mod plugin_plan;
mod plugin_sets;
mod policies;
mod refused_writes;
mod samples;
mod set_refusals;
mod sets;
mod sharing;
mod states;
#[path = "../support/mod.rs"]
mod support;
