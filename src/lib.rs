//! Keeps Alibaba Cloud ECS instances and network interfaces members of security groups.
//!
//! ```text
//!  watch ─▶ observe ─▶ decide ─▶ act ─▶ … until nothing is left to do ─▶ status ─▶ requeue
//!           reads      pure      one effect                              one patch, if it differs
//! ```
//!
//! | module | purpose | what it may do |
//! |---|---|---|
//! | [`api`] | the kinds, reasons and names that users see | nothing: types |
//! | [`membership`] | the reconcile loop of `SecurityGroupMembership` | read and write objects, call the cloud through an account |
//! | [`set`] | the reconcile loop of `SecurityGroupMembershipSet` | create, change and delete memberships |
//! | [`nodes`] | the Nodes that sets select | watch Nodes while a set selects some |
//! | [`account`] | credentials, grants, the directory of usable accounts | read Secrets, call STS, write account status |
//! | [`ecs`] | the cloud client: signatures, typed calls, the error table | call the cloud |
//! | [`condition`] | `metav1.Condition` lists | nothing: pure |
//! | [`shutdown`] | the request to end | nothing: it is awaited |
//! | [`clock`] | wall time and random numbers | read both from the system |
//! | [`kubernetes`] | deadlines for calls to the API server, the bound on writes, events | call the API server for its callers |
//! | [`watched`] | deserialization of the API server's answers | nothing: types |
//! | [`kubectl`] | the verbs of the plugin `kubectl sgm`; its process is `bin/kubectl-sgm.rs` | read objects, Secrets and the cloud with a person's rights; `drain` writes objects |
//! | [`operator`] | connects the modules above and runs them | everything |
//! | [`access`] | which kinds, rights and CRDs the cluster lacks for the operator | read schemas, list one object of a kind |
//! | [`simulator`] | a local ECS for tests and the demo; its process is `bin/ecs-simulator.rs` | pure, except for its server |
//! | [`args`], [`telemetry`] | command line; logs, metrics, probes | read arguments and environment; log |
//! | [`listener`] | serves probes and metrics within bounds | listen |
//!
//! Imports point downward, never up or sideways (`tests/repository/layers.rs`):
//!
//! ```text
//! operator      kubectl
//! set        access
//! membership    nodes
//! account
//! args
//! kubernetes
//! telemetry
//! ecs        watched    listener
//! api        clock        condition        shutdown
//! ```
//!
//! Words of our own: an *edge* is the membership of one target in one group. A *claim* says what the operator owns of it. A *pass* is one
//! run of the loop over one object. The *ledger* knows when a call of ours may last have changed an edge.
//!
//! The simulator stands apart. The process is `main.rs`.

pub mod access;
pub mod account;
pub mod api;
pub mod args;
pub mod clock;
pub mod condition;
pub mod ecs;
pub mod kubectl;
pub mod kubernetes;
pub mod listener;
pub mod membership;
pub mod nodes;
pub mod operator;
pub mod set;
pub mod shutdown;
pub mod simulator;
pub mod telemetry;
pub mod watched;
