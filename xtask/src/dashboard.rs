//! Builds the dashboard: packages and build in the cache, what comes out in the checkout, where the server's build finds it.

use crate::{
    cache::{Cache, root},
    progress::Busy,
    setup::{STAMP, clear, ensure_room, place, run_quietly, stamp_is},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The sources, in the checkout.
const SOURCES: &str = "control-plane/dashboard";
/// Of the sources: what hangs on nothing but these is installed once for them.
const PACKAGES: &[&str] = &[".npmrc", "package-lock.json", "package.json"];
/// What is made of the sources and is none.
const MADE: &[&str] = &["dist", "node_modules", "schema.ts", "test-results", "playwright-report"];
/// What the packages take on disk while they are installed.
const PACKAGES_MB: u64 = 400;

/// The folder in which the sources lie beside their packages; the browser's tests run there.
pub(crate) fn folder(cache: &Cache) -> PathBuf {
    cache.join("dashboard/work")
}

/// Installs, builds and places what is not there for these sources; quiet where all is.
pub(crate) fn bring(cache: &Cache) -> Result<()> {
    let sources = sources(&root().join(SOURCES))?;
    let stamp = digest(&sources);
    let built = cache.join("dashboard/dist");
    let target = root().join(SOURCES).join("dist");
    let work = folder(cache);
    let unfolded = work.join("src").is_dir() && stamp_is(&work, &stamp);
    if unfolded && stamp_is(&built, &stamp) {
        return put(&built, &target, &stamp);
    }
    let started = Instant::now();
    unfold(&sources, &work)?;
    packages(cache, &work, &sources)?;
    let busy = Busy::new("dashboard: building");
    let making = cache.join("dashboard/making");
    clear(&making)?;
    run_quietly(npm(&work).args(["run", "--silent", "build"]).env("EDGEWRIGHT_DASHBOARD_OUT", &making))
        .context("building the dashboard")?;
    ensure!(making.join("index.html").is_file(), "the dashboard's build made no page");
    place(&making, &built, &stamp)?;
    fs::write(work.join(STAMP), &stamp).context("writing the stamp")?;
    drop(busy);
    eprintln!("dashboard ({:.0} s)", started.elapsed().as_secs_f64());
    put(&built, &target, &stamp)
}

/// Is the dashboard of these sources in its place?
pub(crate) fn is_there(cache: &Cache) -> Result<bool> {
    let stamp = digest(&sources(&root().join(SOURCES))?);
    let target = root().join(SOURCES).join("dist");
    Ok(stamp_is(&folder(cache), &stamp) && stamp_is(&target, &stamp))
}

/// `npm` in the folder of the sources, that asks nobody for news.
pub(crate) fn npm(work: &Path) -> Command {
    let mut command = Command::new("npm");
    command
        .current_dir(work)
        .env("npm_config_update_notifier", "false")
        .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    command
}

/// A file of the sources: its path there, and its bytes.
type Source = (String, Vec<u8>);

fn sources(folder: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    walk(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if MADE.contains(&name.as_str()) || name.ends_with(".tsbuildinfo") {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{path}/"), found)?;
        } else {
            let bytes = fs::read(entry.path()).with_context(|| format!("reading {path}"))?;
            found.push((path, bytes));
        }
    }
    Ok(())
}

/// SHA-256 over names and contents, each with its length before it.
fn digest(sources: &[Source]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (path, bytes) in sources {
        for part in [path.as_bytes(), bytes.as_slice()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
    }
    hex::encode(context.finish())
}

/// Puts the sources into `work` in place of those that are there; the packages stay.
fn unfold(sources: &[Source], work: &Path) -> Result<()> {
    fs::create_dir_all(work).with_context(|| format!("making {}", work.display()))?;
    for entry in fs::read_dir(work).with_context(|| format!("reading {}", work.display()))? {
        let entry = entry?;
        if entry.file_name() == "node_modules" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            clear(&entry.path())?;
        } else {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    for (path, bytes) in sources {
        let target = work.join(path);
        fs::create_dir_all(target.parent().unwrap_or(work))?;
        fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

/// Installs the packages that the lock file pins, by their hashes.
fn packages(cache: &Cache, work: &Path, sources: &[Source]) -> Result<()> {
    let pinned: Vec<Source> =
        sources.iter().filter(|(path, _)| PACKAGES.contains(&path.as_str())).cloned().collect();
    let stamp = digest(&pinned);
    let modules = work.join("node_modules");
    if stamp_is(&modules, &stamp) {
        return Ok(());
    }
    ensure_room(cache, PACKAGES_MB * 1_000_000)?;
    let _busy = Busy::new("dashboard: installing its packages");
    // What npm keeps for itself is of no use once the packages are there.
    let own = work.join(".npm");
    run_quietly(npm(work).args(["ci", "--silent", "--ignore-scripts"]).env("npm_config_cache", &own))
        .context("installing the dashboard's packages (is the package registry reachable?)")?;
    clear(&own)?;
    fs::write(modules.join(STAMP), &stamp).context("writing the stamp")
}

/// Copies what was built to `target`; nothing where it is there already, so that nothing is built again.
fn put(built: &Path, target: &Path, stamp: &str) -> Result<()> {
    if stamp_is(target, stamp) {
        return Ok(());
    }
    clear(target)?;
    copy(built, target)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let mut entries = fs::read_dir(from)?.collect::<std::io::Result<Vec<_>>>()?;
    // The stamp goes last: without it the copy does not count.
    entries.sort_by_key(|entry| entry.file_name() == STAMP);
    for entry in entries {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("writing {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_sources_tells_names_from_contents() {
        let of = |files: &[(&str, &str)]| {
            let files: Vec<Source> =
                files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
            digest(&files)
        };
        assert_eq!(of(&[("a", "b")]), of(&[("a", "b")]));
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
        assert_ne!(of(&[("a", ""), ("b", "")]), of(&[("a", "")]));
    }

    #[test]
    fn the_sources_hold_what_pins_packages_and_nothing_that_is_made() {
        let found = sources(&root().join(SOURCES)).unwrap();
        let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        for name in PACKAGES.iter().chain(&["openapi.json", "index.html", "src/main.tsx"]) {
            assert!(names.contains(name), "{name} is missing");
        }
        assert!(!names.iter().any(|name| name.starts_with("node_modules/") || name.starts_with("dist/")));
    }

    #[test]
    fn the_lock_file_names_no_registry() {
        let lock = fs::read_to_string(root().join(SOURCES).join("package-lock.json")).unwrap();
        assert!(!lock.contains("\"resolved\""), "write it with omit-lockfile-registry-resolved");
        assert!(lock.contains("\"integrity\""));
    }
}
