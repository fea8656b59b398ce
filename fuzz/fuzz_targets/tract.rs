//! Models, loaded and run by tract. A panic in there becomes an error and is none of the findings.

#![no_main]

use edgewright_fuzz as _;
use libfuzzer_sys::fuzz_target;
use runtime::{LoadOptions, Runtime, Tract};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
};

/// Largest input that is run.
const ELEMENTS_MAX: usize = 1 << 16;

/// What the newest panic said.
static PANIC: Mutex<String> = Mutex::new(String::new());

fn load_and_run(bytes: &[u8]) {
    let Ok(model) = Tract.load(bytes, &LoadOptions::default()) else { return };
    let elements = model.input().elements();
    if elements > ELEMENTS_MAX {
        return;
    }
    let mut output = Vec::new();
    for batch in [1, 3] {
        if model.run_into(&vec![0.5; batch * elements], batch, &mut output).is_ok() {
            assert_eq!(output.len(), batch * model.output().elements());
        }
    }
}

fuzz_target!(
    init: panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    })),
    |bytes: &[u8]| {
        if panic::catch_unwind(AssertUnwindSafe(|| load_and_run(bytes))).is_err() {
            eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
            std::process::abort();
        }
    }
);
