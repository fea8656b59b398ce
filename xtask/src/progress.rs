//! What a person sees while set-up works: a bar or a turning wheel in a terminal, plain lines elsewhere.

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(15);

/// A turning wheel in a terminal, a line elsewhere; gone when dropped.
#[derive(Debug)]
pub(crate) struct Busy(ProgressBar);

impl Busy {
    pub(crate) fn new(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(LOOK_EVERY);
        if bar.is_hidden() {
            eprintln!("{what}");
        }
        Self(bar)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How much of a download has reached a folder: a bar in a terminal, now and then a line elsewhere. The clients that
/// download report to people in their own ways, so the folder's size is what is watched.
#[derive(Debug)]
pub(crate) struct Download {
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Download {
    pub(crate) fn watch(what: &str, folder: &Path, total_bytes: u64) -> Self {
        let bar = ProgressBar::new(total_bytes);
        let template =
            "{msg} {bar:24.cyan/dim} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━╌"));
        }
        bar.set_message(what.to_owned());
        if bar.is_hidden() {
            eprintln!("{what}: downloading {}", DecimalBytes(total_bytes));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, folder) = (Arc::clone(&stop), folder.to_path_buf());
        let watcher = thread::spawn(move || watch(&bar, &folder, total_bytes, &stopped));
        Self { stop, watcher: Some(watcher) }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

fn watch(bar: &ProgressBar, folder: &Path, total_bytes: u64, stop: &AtomicBool) {
    let mut last_line = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_EVERY);
        let here = bytes_below(folder).min(total_bytes);
        bar.set_position(here);
        if bar.is_hidden() && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            eprintln!("  {} of {}", DecimalBytes(here), DecimalBytes(total_bytes));
        }
    }
    bar.finish_and_clear();
}

/// Bytes of all files below a folder; what vanishes meanwhile counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_folder_count_what_lies_deep_in_it() {
        let folder = std::env::temp_dir().join(format!("edgewright-progress-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("one"), [0; 10]).unwrap();
        fs::write(folder.join("a/b/two"), [0; 32]).unwrap();
        assert_eq!(bytes_below(&folder), 42);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(bytes_below(&folder), 0);
    }
}
