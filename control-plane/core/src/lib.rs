//! What the control plane decides and the things that it decides about, without any input or output.
//!
//! [`entity`] names what the store keeps, [`rollout`] plans who gets a version next, [`delivery`] plans which chunk
//! goes to whom. All three take time as an argument.

pub mod delivery;
pub mod entity;
pub mod rollout;
