//! The agent's configuration, TOML. What loads keeps its bounds; a refusal is one line.

#![no_main]

use edgewright_agent::config::{self, ApiAddress, Config, File, Flags};
use edgewright_fuzz::{assert_one_line, folder};
use libfuzzer_sys::fuzz_target;
use std::fs;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A file that names another would make the fuzzer open whatever it spells.
    if toml::from_str::<File>(text).is_ok_and(|file| file.board_file.is_some()) {
        return;
    }
    let path = folder().join("agent.toml");
    fs::write(&path, bytes).expect("a file to read from");
    match Config::load(Some(&path), Flags::default()) {
        Ok(config) => {
            assert!((1..=config::THREADS_MAX).contains(&config.threads));
            assert!((1..=config::INFERENCE_THREADS_MAX).contains(&config.inference_threads));
            assert!(config.body_bytes_max <= config.bodies_bytes_max && !config.runtimes.is_empty());
            if let ApiAddress::Tcp(address) = config.api {
                assert!(address.ip().is_loopback(), "the API listens on {address}");
            }
        }
        Err(error) => assert_one_line(&error),
    }
});
