//! End to end: real binaries, real broker, real TLS, real tools of others.
//!
//! The tests share one control plane and its models, and run one after another: a machine with two cores has
//! no room for two trainings.

#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/isolation.rs"]
mod isolation;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/tools.rs"]
mod tools;
#[path = "e2e/world.rs"]
mod world;
