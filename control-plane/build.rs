//! The migrations and the dashboard are compiled in; a change of them alone has to rebuild what holds them. The dashboard is
//! copied to where the build's own files lie: a build folder that several checkouts share outlives any of them.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Where `cargo xtask` puts the dashboard that it built.
const DASHBOARD: &str = "dashboard/dist";
/// What is shown where it has not.
const PLACEHOLDER: &str = "src/page/dashboard/placeholder.html";
const INDEX: &str = "index.html";
/// Ending of what lies compressed beside a file.
const BROTLI: &str = ".br";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed={DASHBOARD}");
    println!("cargo::rerun-if-changed={PLACEHOLDER}");
    let root = variable("CARGO_MANIFEST_DIR")?;
    let out = variable("OUT_DIR")?;
    let mut files = Vec::new();
    let dashboard = root.join(DASHBOARD);
    if dashboard.join(INDEX).is_file() {
        collect(&dashboard, "", &mut files)?;
    } else {
        files.push((INDEX.to_owned(), root.join(PLACEHOLDER)));
    }
    fs::write(out.join("dashboard.rs"), table(&copied(files, &out.join("dashboard"))?)?)
}

fn variable(name: &str) -> io::Result<PathBuf> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("{name} is not set")))
}

/// All files below `folder`, with their paths there; none whose name begins with a dot.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| io::Error::other("a name is not UTF-8"))?;
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

/// The same files as they lie in `folder` afterwards, numbered.
fn copied(files: Vec<(String, PathBuf)>, folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    fs::create_dir_all(folder)?;
    let copy = |(number, (path, file)): (usize, (String, PathBuf))| {
        let place = folder.join(number.to_string());
        fs::write(&place, fs::read(file)?)?;
        Ok((path, place))
    };
    files.into_iter().enumerate().map(copy).collect()
}

/// A slice of `Embedded`, as Rust.
fn table(files: &[(String, PathBuf)]) -> io::Result<String> {
    let mut sorted: Vec<_> = files.iter().filter(|(path, _)| !path.ends_with(BROTLI)).collect();
    sorted.sort();
    let mut text = "&[\n".to_owned();
    for (path, file) in sorted {
        let tag = fnv1a(&fs::read(file)?);
        let compressed = files.iter().find(|(other, _)| other.strip_suffix(BROTLI) == Some(path));
        let brotli = match compressed {
            Some((_, file)) => format!("Some(include_bytes!({file:?}))"),
            None => "None".to_owned(),
        };
        let written = writeln!(
            text,
            "    Embedded {{ path: {path:?}, bytes: include_bytes!({file:?}), brotli: {brotli}, tag: \"\\\"{tag:016x}\\\"\" }},"
        );
        written.map_err(io::Error::other)?;
    }
    text.push_str("]\n");
    Ok(text)
}

/// Tells one version of a file from the next, no more.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
