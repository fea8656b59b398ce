//! What the parts of a run use between two moments.

use super::{
    stage::Stage,
    usage::{Share, Usage},
};
use anyhow::Result;
use serde::Serialize;
use std::time::Instant;

/// Measures from when it is made.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    before: Vec<(&'static str, Usage)>,
}

/// Processor time of one part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    pub part: &'static str,
    pub cpu_s: f64,
    /// On average over the time.
    pub processors: f64,
}

/// What was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Used {
    pub seconds: f64,
    pub parts: Vec<Part>,
    /// Of the server, the greatest first.
    pub server_threads: Vec<Share>,
}

impl Meter {
    pub fn begin(stage: &mut Stage) -> Result<Self> {
        Ok(Self { before: stage.usage()?, began: Instant::now() })
    }

    pub fn end(self, stage: &mut Stage) -> Result<Used> {
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Used::between(&self.before, &stage.usage()?, seconds))
    }
}

impl Used {
    fn between(before: &[(&'static str, Usage)], after: &[(&'static str, Usage)], seconds: f64) -> Self {
        let mut used = Self { seconds, ..Self::default() };
        let nothing = Usage::default();
        for &(part, ref after) in after {
            let before = before.iter().find(|(name, _)| *name == part).map_or(&nothing, |(_, usage)| usage);
            let cpu_s = (after.cpu_s - before.cpu_s).max(0.0);
            used.parts.push(Part { part, cpu_s, processors: cpu_s / seconds });
            if part == SERVER {
                used.server_threads = after.shares_since(before, seconds);
            }
        }
        used
    }

    /// Processor seconds of the server.
    pub fn server_cpu_s(&self) -> f64 {
        self.parts.iter().filter(|part| part.part == SERVER).map(|part| part.cpu_s).sum()
    }

    /// Processors by part.
    pub fn processors(&self) -> Vec<(&str, f64)> {
        self.parts.iter().map(|part| (part.part, part.processors)).collect()
    }
}

const SERVER: &str = "server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_what_they_used_meanwhile() {
        let usage = |cpu_s, thread_s| Usage { cpu_s, threads: [("serve".to_owned(), thread_s)].into() };
        let before = [("server", usage(1.0, 1.0))];
        let after = [("server", usage(5.0, 4.0)), ("fleet", usage(2.0, 2.0))];
        let used = Used::between(&before, &after, 2.0);
        assert_eq!((used.server_cpu_s(), used.processors()), (4.0, vec![("server", 2.0), ("fleet", 1.0)]));
        assert_eq!(used.server_threads, [Share { thread: "serve".to_owned(), processors: 1.5 }]);
    }
}
