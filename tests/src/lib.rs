//! Whole-system runs: real binaries, real broker, real TLS.
//!
//! [`harness`] starts and stops the parts, [`data`] reads test splits, [`load`] keeps requests coming,
//! [`powercut`] ends a program at one of its file operations; the demo, the end-to-end tests and the benches are built
//! from them.
//! [`fleet`] is a simulated one, [`alone`] a broker with nothing behind it, [`tuf`] what the public TUF suite drives.

pub mod alone;
pub mod bench;
pub mod data;
pub mod demo;
pub mod fleet;
pub mod harness;
pub mod load;
pub mod powercut;
pub mod tuf;
