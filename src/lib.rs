//! Keeps Alibaba Cloud ECS instances and network interfaces members of security groups.

pub mod api;
pub mod ecs;
pub mod simulator;
