//! The updater with real files, a real database and a real model, and a link that ends in this process.

mod order;
mod profile;
mod transfer;
mod updates;
mod world;

use super::*;
use crate::{
    engine::Engine,
    installer::{Installer, JOBS_MAX, Work},
    link::{NotSent, Receipt, Refused, Token},
    profiler::Profiler,
    testing::{self, GOLDEN, MODEL},
};
use agent_core::update::{Fetched, SlotAction};
use shared::{
    Signed,
    board::RuntimeName,
    manifest::{FileEntry, GOLDEN_FILE, MODEL_FILE},
    signing::{Keyring, Role, SigningKey, TrustedKey},
    topic::Filter,
    wire::{
        Assignment, Batch, DeltaRef, Desired, Event, Outcome, Presence, Refusal, Reported, TrialPolicy, Want,
    },
};
use std::{collections::HashMap, path::Path, sync::atomic::AtomicU64, time::Instant};
