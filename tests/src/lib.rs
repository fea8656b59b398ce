//! Whole-system runs: real binaries, real broker, real TLS.
//!
//! [`harness`] starts and stops the parts, [`data`] reads test splits, [`load`] keeps requests coming; the
//! demo, the end-to-end tests and the benches are built from them.

pub mod bench;
pub mod data;
pub mod demo;
pub mod harness;
pub mod load;
