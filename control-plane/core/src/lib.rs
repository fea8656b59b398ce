//! What the control plane decides and the things that it decides about, without any input or output.
//!
//! [`entity`] names what the store keeps, [`rollout`] plans who gets a version next, [`delivery`] plans which chunk
//! goes to whom, [`restart`] says when a killed worker starts again, [`scheduling`] whether another may start,
//! [`access`] says what a role may, [`throttle`] how often somebody may ask, [`admission`] holds back those who are refused
//! again and again, [`refusals`] counts what was refused, [`profile`] fits latencies to what devices measured, [`leader`] says
//! which of several servers acts, [`rollup`] adds up what devices say, [`retention`] says how long that is kept, [`clock`] is
//! the time while the wall clock jumps, [`incident`] says what somebody should look at. All take time as an argument.

pub mod access;
pub mod admission;
mod bucket;
pub mod clock;
pub mod delivery;
pub mod entity;
pub mod incident;
pub mod leader;
pub mod profile;
pub mod refusals;
pub mod restart;
pub mod retention;
pub mod rollout;
pub mod rollup;
pub mod scheduling;
pub mod throttle;
