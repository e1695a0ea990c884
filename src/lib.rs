//! Keeps Alibaba Cloud ECS instances and network interfaces members of security groups.
//!
//! ```text
//!  watch ─▶ observe ─▶ decide ─▶ act ─▶ … until nothing is left to do ─▶ status ─▶ requeue
//!           reads      pure      one effect                              one patch, if it differs
//! ```
//!
//! | module | what it is | what it may do |
//! |---|---|---|
//! | [`api`] | the kinds, reasons and names that users meet | nothing: types |
//! | [`membership`] | the loop over `SecurityGroupMembership` | read and write objects, call the cloud through an account |
//! | [`account`] | credentials, grants, the directory of usable accounts | read Secrets, ask STS, write account status |
//! | [`ecs`] | the cloud's client: signatures, typed calls, the error table | call the cloud |
//! | [`condition`] | `metav1.Condition` lists | nothing: pure |
//! | [`clock`] | wall time and random numbers | ask the system for both |
//! | [`kubernetes`] | deadlines for plain calls to the API server, writes of a status | call the API server when told to |
//! | [`watched`] | how its answers are read | nothing: types |
//! | [`operator`] | puts the above together and runs it | everything |
//! | [`simulator`] | a local ECS for tests and the demo; its process is `bin/ecs-simulator.rs` | pure but for its server |
//! | [`args`], [`telemetry`] | what was typed; logs, metrics, probes | read arguments and environment; listen |
//!
//! The process is `main.rs`.

pub mod account;
pub mod api;
pub mod args;
pub mod clock;
pub mod condition;
pub mod ecs;
pub mod kubernetes;
pub mod membership;
pub mod operator;
pub mod simulator;
pub mod telemetry;
pub mod watched;
