//! The control plane: server and command line.
//!
//! [`app`] ties the parts together. [`api`] and [`page`] use [`app`] only; [`store`], [`broker`], [`signer`] and
//! [`jobs`] know neither each other nor [`app`]; [`repository`] knows the [`signer`]'s files; [`serve`] starts it all. `tests/layers.rs` holds that.

pub mod api;
pub mod app;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod jobs;
pub mod page;
pub mod repository;
pub mod serve;
pub mod signer;
pub mod store;
#[cfg(test)]
mod testing;
