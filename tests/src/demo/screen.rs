//! The lines that the demo shows: one a step, with a tick and a figure.

use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Where the demo writes to.
#[derive(Debug)]
pub struct Screen {
    start: Instant,
}

impl Screen {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Seconds since the demo began.
    pub fn elapsed_s(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// A finished step: a tick, what was done, and the figure that shows it.
    pub fn tick(&self, what: &str, figure: &str) {
        let time = style(format!("{:>6.1} s", self.elapsed_s())).dim();
        println!("{time} {} {what}: {figure}", style("✔").green().bold());
    }

    /// Text that belongs to the step before, indented.
    pub fn block(&self, text: &str) {
        for line in text.lines() {
            println!("           {line}");
        }
    }

    /// A wheel that turns while a step runs and is gone afterwards; nothing where no person watches.
    pub fn busy(&self, what: &str) -> Busy {
        let bar = ProgressBar::new_spinner();
        if let Ok(spinner) = ProgressStyle::with_template("         {spinner} {msg}") {
            bar.set_style(spinner);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Busy(bar)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends its wheel when dropped.
#[derive(Debug)]
pub struct Busy(ProgressBar);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss)]
    let kib = count as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.1} KiB") } else { format!("{:.1} MiB", kib / 1024.0) }
}
