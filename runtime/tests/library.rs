#![allow(clippy::unwrap_used)]
//! Opening ONNX Runtime's library: one process, so one test.

use runtime::{Error, Ort};
use std::path::Path;

#[test]
fn a_wrong_library_is_an_error_and_leaves_the_way_free() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("libtext.so");
    std::fs::write(&text, "no library").unwrap();
    for wrong in [Path::new("/nowhere/libonnxruntime.so"), &text, directory.path()] {
        let error = Ort::open(Some(wrong)).unwrap_err();
        assert!(matches!(error, Error::Library { .. }));
        let line = error.to_string();
        assert!(line.contains(&wrong.display().to_string()) && !line.contains('\n'), "{line}");
        assert!(line.contains("EDGEWRIGHT_ORT"), "it says what to do: {line}");
    }
    // The C library is a library, but not this one.
    let error = Ort::open(Some(Path::new("libc.so.6"))).unwrap_err().to_string();
    assert!(error.contains("OrtGetApiBase"), "{error}");
    match Ort::open(None) {
        Ok(ort) => {
            assert_eq!(Ort::open(None).unwrap().library(), ort.library());
            assert!(
                Ort::open(Some(Path::new("/nowhere/libonnxruntime.so"))).is_err(),
                "one library a process"
            );
        }
        Err(error) => println!("nothing to open after a failure: {error}"),
    }
}
