//! Oracles and harnesses for the tests of the whole workspace. Nothing of the product depends on this crate.

pub mod crash;
pub mod crashrun;
pub mod golden;
pub mod golden_store;
pub mod harness;
pub mod hostile;
pub mod hostile_blobs;
pub mod hostile_cluster;
pub mod hostile_control;
mod hostile_input;
pub mod hostile_talk;
pub mod hostile_template;
mod hostile_ve;
pub mod hostile_wire;
pub mod model;
pub mod mounted;
pub mod netns;
pub mod node;
pub mod opgen;
pub mod reader;
pub mod run;
pub mod samples;
pub mod samples_scrub;
