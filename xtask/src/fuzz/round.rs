//! One target's round: libFuzzer is started, what it says is read, and what it found is kept.

use super::{INPUT_S_MAX, RSS_MIB_MAX, targets::package};
use crate::cache::Cache;
use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const LINE_EVERY: Duration = Duration::from_secs(15);
/// Longest line of a target that is looked at.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest reason that is shown.
const WHAT_CHARS_MAX: usize = 300;

/// A target, ready to run.
#[derive(Debug)]
pub(crate) struct Round {
    target: String,
    seconds: u64,
    command: Command,
    log: PathBuf,
}

/// How a round went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    pub(crate) seconds: u64,
    pub(crate) seen: Seen,
    pub(crate) trouble: Option<Trouble>,
}

impl Outcome {
    /// Of a target that did not build.
    pub(crate) fn not_built(target: &str) -> Self {
        let what = "it did not build; the compiler's errors are above".to_owned();
        let trouble = Trouble { kind: "not built", what, input: None, log: None };
        Self { target: target.to_owned(), seconds: 0, seen: Seen::default(), trouble: Some(trouble) }
    }
}

/// What libFuzzer counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) runs: u64,
    /// Edges of the program that were reached.
    pub(crate) coverage: u64,
    /// Inputs that are kept, each for something that no other reaches.
    pub(crate) corpus: u64,
}

/// What a target found.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: &'static str,
    /// One line.
    pub(crate) what: String,
    /// The input, where one was written.
    pub(crate) input: Option<PathBuf>,
    /// All that the target said.
    pub(crate) log: Option<PathBuf>,
}

impl Round {
    /// `programs` holds the built targets; what a target writes while it runs goes into `work`.
    pub(crate) fn prepare(
        cache: &Cache,
        work: &Path,
        programs: &Path,
        target: &str,
        seconds: u64,
    ) -> Result<Self> {
        let folder = |name: &str| {
            let folder = cache.join("fuzz").join(name);
            fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
            Ok::<_, anyhow::Error>(folder)
        };
        let corpus = folder(&format!("corpus/{target}"))?;
        let artifacts = folder(&format!("artifacts/{target}"))?;
        let log = folder("logs")?.join(format!("{target}.log"));
        let mut command = Command::new(programs.join(target));
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={RSS_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_S_MAX}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            // The first folder takes what is new; the seeds in the checkout are only read.
            .arg(corpus)
            .arg(package().join("seeds").join(target))
            .env("TMPDIR", work)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(Self { target: target.to_owned(), seconds, command, log })
    }

    /// Runs it to its end, with a line of progress.
    pub(crate) fn run(mut self, bars: &MultiProgress) -> Result<Outcome> {
        let progress = Progress::new(bars, &self.target, self.seconds);
        let mut log = File::create(&self.log).with_context(|| format!("writing {}", self.log.display()))?;
        let started = Instant::now();
        let mut child = self.command.spawn().with_context(|| format!("starting {}", self.target))?;
        let mut reading = Reading::default();
        if let Some(said) = child.stderr.take() {
            let mut said = BufReader::new(said);
            let mut line = Vec::new();
            while read_line(&mut said, &mut line).with_context(|| format!("listening to {}", self.target))? {
                log.write_all(&line).with_context(|| format!("writing {}", self.log.display()))?;
                reading.take(String::from_utf8_lossy(&line).trim_end());
                progress.show(&reading.seen, started.elapsed());
            }
        }
        let status = child.wait().with_context(|| format!("waiting for {}", self.target))?;
        let (seconds, seen) = (started.elapsed().as_secs().max(1), reading.seen);
        let trouble = (!status.success()).then(|| reading.trouble(&status.to_string(), self.log.clone()));
        let outcome = Outcome { target: self.target, seconds, seen, trouble };
        progress.end(&outcome);
        Ok(outcome)
    }
}

/// Reads one line, of which only the beginning is kept; false at the end.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    loop {
        let ready = from.fill_buf()?;
        if ready.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = ready.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let part = &ready[..end.unwrap_or(ready.len())];
        line.extend_from_slice(&part[..part.len().min(LINE_BYTES_MAX.saturating_sub(line.len()))]);
        let used = part.len();
        from.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// What was understood of libFuzzer's lines.
#[derive(Debug, Default)]
struct Reading {
    seen: Seen,
    input: Option<PathBuf>,
    kind: Option<&'static str>,
    what: Option<String>,
    /// The line before was the head of a panic, whose text comes next.
    panicked: bool,
}

impl Reading {
    fn take(&mut self, line: &str) {
        if std::mem::take(&mut self.panicked) {
            self.what = Some(format!("{}: {line}", self.what.as_deref().unwrap_or("it panicked")));
        } else if let Some(rest) = line.strip_prefix('#') {
            self.status(rest);
        } else if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
            self.seen.runs = runs.trim().parse().unwrap_or(self.seen.runs);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(path.into());
        } else if let Some((_, place)) = line.split_once(" panicked at ") {
            self.what.get_or_insert_with(|| place.trim_end_matches(':').to_owned());
            self.panicked = self.kind.is_none();
        } else if line.contains("bytes alive, allowed are") {
            (self.kind, self.what) = (Some("memory"), Some(line.to_owned()));
        } else if let Some((_, error)) = line.split_once("ERROR: libFuzzer: ") {
            let kind = match error.split_whitespace().next() {
                Some("timeout") => "timeout",
                Some("out-of-memory") => "memory",
                _ => "crash",
            };
            self.kind.get_or_insert(kind);
            self.what.get_or_insert_with(|| error.to_owned());
        }
    }

    /// `1234 NEW cov: 5 ft: 6 corp: 7/8b …`
    fn status(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if let Some(Ok(runs)) = words.next().map(str::parse) {
            self.seen.runs = runs;
        }
        while let Some(word) = words.next() {
            let number = |text: Option<&str>| text?.split('/').next()?.parse().ok();
            match word {
                "cov:" => self.seen.coverage = number(words.next()).unwrap_or(self.seen.coverage),
                "corp:" => self.seen.corpus = number(words.next()).unwrap_or(self.seen.corpus),
                _ => {}
            }
        }
    }

    fn trouble(self, status: &str, log: PathBuf) -> Trouble {
        let what = self.what.unwrap_or_else(|| format!("it ended with {status}"));
        let what = what.chars().take(WHAT_CHARS_MAX).collect();
        Trouble { kind: self.kind.unwrap_or("failed"), what, input: self.input, log: Some(log) }
    }
}

/// One line: a bar in a terminal, now and then a plain line elsewhere.
struct Progress {
    bar: ProgressBar,
    target: String,
    last_line: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(bars: &MultiProgress, target: &str, seconds: u64) -> Self {
        let bar = bars.add(ProgressBar::new(seconds));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:10} {bar:24.cyan/dim} {pos:>4}/{len} s  {msg}")
        {
            bar.set_style(style.progress_chars("━━╌"));
        }
        bar.set_prefix(target.to_owned());
        if bar.is_hidden() {
            eprintln!("{target}: running for {seconds} s");
        }
        Self { bar, target: target.to_owned(), last_line: std::cell::Cell::new(Instant::now()) }
    }

    fn show(&self, seen: &Seen, elapsed: Duration) {
        self.bar.set_position(elapsed.as_secs());
        self.bar.set_message(describe(seen));
        if self.bar.is_hidden() && self.last_line.get().elapsed() >= LINE_EVERY {
            self.last_line.set(Instant::now());
            eprintln!("{}: {} s, {}", self.target, elapsed.as_secs(), describe(seen));
        }
    }

    fn end(&self, outcome: &Outcome) {
        let result = outcome.trouble.as_ref().map_or("nothing found", |trouble| trouble.kind);
        let text = format!("{}: {}, {result}", self.target, describe(&outcome.seen));
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
        self.bar.finish_and_clear();
    }
}

fn describe(seen: &Seen) -> String {
    format!("{} runs, coverage {}, corpus {}", seen.runs, seen.coverage, seen.corpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reading {
        let mut reading = Reading::default();
        text.lines().for_each(|line| reading.take(line));
        reading
    }

    #[test]
    fn the_newest_counts_are_shown_and_the_final_ones_hold() {
        let reading = read(
            "INFO: Seed: 1\n#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
             #4096\tpulse  cov: 321 ft: 600 corp: 45/1200b lim: 43 exec/s: 2048 rss: 40Mb\n\
             Done 5000 runs in 3 second(s)\nstat::number_of_executed_units: 5000\n",
        );
        assert_eq!(reading.seen, Seen { runs: 5000, coverage: 321, corpus: 45 });
        assert_eq!(reading.input, None);
    }

    #[test]
    fn a_panic_is_told_with_its_place_its_text_and_the_input() {
        let reading = read(
            "#10\tNEW    cov: 5 ft: 5 corp: 2/3b\n\n\
             thread '<unnamed>' (1) panicked at fuzz_targets/topic.rs:9:5:\nassertion failed: left\n\
             ==1== ERROR: libFuzzer: deadly signal\n\
             artifact_prefix='/c/'; Test unit written to /c/crash-ab\n",
        );
        let trouble = reading.trouble("signal: 6", "log".into());
        assert_eq!(trouble.what, "fuzz_targets/topic.rs:9:5: assertion failed: left");
        assert_eq!((trouble.kind, trouble.input), ("crash", Some("/c/crash-ab".into())));
    }

    #[test]
    fn time_and_memory_are_told_apart_from_a_crash() {
        let kind = |text: &str| read(text).trouble("exit", "log".into()).kind;
        assert_eq!(kind("==1== ERROR: libFuzzer: timeout after 10 seconds"), "timeout");
        assert_eq!(kind("==1== ERROR: libFuzzer: out-of-memory (used: 600Mb; limit: 512Mb)"), "memory");
        let capped =
            "9 bytes more make 600 bytes alive, allowed are 512\n==1== ERROR: libFuzzer: deadly signal";
        assert_eq!(kind(capped), "memory");
        assert_eq!(kind(""), "failed");
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut line = Vec::new();
        let mut text: &[u8] = &[&[b'x'; LINE_BYTES_MAX + 9][..], b"\nnext"].concat();
        assert!(read_line(&mut text, &mut line).unwrap());
        assert_eq!(line.len(), LINE_BYTES_MAX);
        assert!(read_line(&mut text, &mut line).unwrap());
        assert_eq!(line, b"next");
        assert!(!read_line(&mut text, &mut line).unwrap());
    }
}
