#![allow(clippy::unwrap_used)]
//! The program that cuts another's power, on a script whose file operations are known.

use edgewright_tests::powercut::{CUT_STATUS, Record, check};
use std::{path::Path, process::Command};

/// Makes `a` with eight bytes in it, and renames it to `b`.
const SCRIPT: &str = "printf 12345678 > \"$0/a\" && mv \"$0/a\" \"$0/b\"";

/// Runs the script with a fault; gives its exit status and its record. None where nothing can be traced.
fn run(folder: &Path, at: u64, fault: &str) -> Option<(i32, Record)> {
    if let Err(error) = check() {
        println!("skipped: {error:#}");
        return None;
    }
    // The kernel's own name for it.
    let folder = &folder.canonicalize().unwrap();
    let record = folder.with_extension("record");
    let status = Command::new(env!("CARGO_BIN_EXE_edgewright-powercut"))
        .arg("--root")
        .arg(folder)
        .arg("--record")
        .arg(&record)
        .args(["--at", &at.to_string(), "--fault", fault, "--", "sh", "-c", SCRIPT])
        .arg(folder)
        .status()
        .unwrap();
    let read = Record::read(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    Some((status.code().unwrap(), read))
}

fn content(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok()
}

#[test]
fn each_file_operation_below_the_folder_is_written_down_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let Some((status, record)) = run(folder.path(), 0, "kill") else { return };
    assert_eq!(status, 0);
    assert!(record.process > 1);
    let calls: Vec<&str> = record.operations.iter().map(|operation| operation.call.as_str()).collect();
    assert_eq!(calls[..2], ["openat", "write"]);
    assert!(calls.len() == 3 && calls[2].starts_with("rename"), "{calls:?}");
    assert!(record.operations.iter().all(|operation| operation.path == "a"), "{record:?}");
    assert_eq!(record.operations[1].size_bytes, 8);
    assert_eq!(content(folder.path(), "b").as_deref(), Some("12345678"));
}

#[test]
fn the_operation_at_which_the_power_goes_does_not_happen_and_a_torn_write_happens_by_half() {
    for (at, fault, a) in [
        (1, "kill", None),
        (2, "kill", Some("")),
        (2, "torn", Some("1234")),
        (3, "kill", Some("12345678")),
        (3, "torn", Some("12345678")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let Some((status, record)) = run(folder.path(), at, fault) else { return };
        assert_eq!(status, i32::from(CUT_STATUS), "{fault} at {at}");
        assert_eq!(record.operations.len() as u64, at, "{fault} at {at}");
        assert_eq!(content(folder.path(), "a").as_deref(), a, "{fault} at {at}");
        assert_eq!(content(folder.path(), "b"), None, "{fault} at {at}");
    }
}

#[test]
fn a_full_disk_refuses_one_operation_or_all_from_there_on() {
    for (at, fault, fails, refused) in [
        (3, "full-once", true, 1),
        (2, "full-once", true, 1),
        (1, "full-on", true, 1),
        (9, "full-on", false, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let Some((got, record)) = run(folder.path(), at, fault) else { return };
        assert_eq!(got != 0, fails, "{fault} at {at}");
        let seen = record.operations.iter().filter(|operation| operation.refused).count();
        assert_eq!(seen, refused, "{fault} at {at}: {record:?}");
        assert_eq!(content(folder.path(), "b").is_some(), !fails, "{fault} at {at}");
    }
}
