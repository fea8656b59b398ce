//! What the control plane decides and the things that it decides about, without any input or output.
//!
//! [`entity`] names what the store keeps, [`rollout`] plans who gets a version next, [`delivery`] plans which chunk
//! goes to whom, [`restart`] says when a killed worker starts again, [`scheduling`] whether another may start,
//! [`admission`] holds back those who are refused again and again, [`refusals`] counts what was refused, [`profile`] fits
//! latencies to what devices measured, [`leader`] says which of several servers acts. All take time as an argument.

pub mod admission;
mod bucket;
pub mod delivery;
pub mod entity;
pub mod leader;
pub mod profile;
pub mod refusals;
pub mod restart;
pub mod rollout;
pub mod scheduling;
