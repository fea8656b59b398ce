//! What looking for weights costs, in a process of its own: others would count too.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

/// Most memory that this process has had, in bytes.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_hostile_model_costs_no_memory_for_its_fields() {
    const BYTES: usize = 32 * 1024 * 1024;
    // A field of no bytes in every two of the file, of the model and then in its graph.
    let outer = [0x0au8, 0].repeat(BYTES / 2);
    let mut inner = vec![0x3au8, 0x80, 0x80, 0x80, 0x10];
    inner.extend([0x2a, 0].repeat(BYTES / 2));
    for model in [outer, inner] {
        let before = peak_bytes();
        assert!(delta::onnx::regions(&model, &model).is_empty());
        let taken = peak_bytes() - before;
        assert!(taken < BYTES / 4, "{taken} bytes for a file of {BYTES}");
    }
}
