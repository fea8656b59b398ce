//! Where the server spends its time, function by function, by Linux's `perf` where that is installed and allowed.

use crate::harness::wait_for;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Looks a second: not in step with anything.
const LOOKS_PER_S: &str = "199";
const LINES: usize = 25;
const END_LIMIT: Duration = Duration::from_secs(60);

/// A recording that ends by itself.
#[derive(Debug)]
pub struct Recording(Child);

/// Begins to look at a process for `span`; none where that cannot be done.
pub fn record(process: u32, span: Duration, file: &Path) -> Option<Recording> {
    let mut command = Command::new("perf");
    command.args(["record", "--quiet", "-F", LOOKS_PER_S, "-p", &process.to_string(), "-o"]).arg(file);
    command.args(["--", "sleep", &span.as_secs().max(1).to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.ok().map(Recording)
}

impl Recording {
    /// Waits for its end; gives the functions that took most, each with its share.
    pub fn functions(mut self, file: &Path) -> Vec<String> {
        let ended = wait_for("perf to end", END_LIMIT, || Ok(self.0.try_wait()?));
        if !ended.is_ok_and(|status| status.success()) {
            return Vec::new();
        }
        let report = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "--sort", "symbol", "-i"])
            .arg(file)
            .stdin(Stdio::null())
            .output();
        let text = report.map(|output| output.stdout).unwrap_or_default();
        functions(&String::from_utf8_lossy(&text))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn functions(report: &str) -> Vec<String> {
    let lines = report.lines().map(str::trim).filter(|line| line.contains('%') && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "-").collect();
            words.join(" ")
        })
        .take(LINES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_a_report_are_read_without_its_remarks() {
        let report = "# Samples: 29\n#\n# Overhead  Symbol\n    20.69%  [.] __strcmp_evex    -   -\n     6.90%  [k] copy\n\n";
        assert_eq!(functions(report), ["20.69% [.] __strcmp_evex", "6.90% [k] copy"]);
    }
}
