//! Debian's `rustc-web`: a compiler of the same age as the installed one, with the standard libraries of ARM.

use super::Linux;
use crate::{cache::Cache, progress::Busy, setup::run_quietly};
use anyhow::{Context, Result};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

/// Debian's compiler and the target's standard library in the cache: downloaded and checked by apt with the
/// machine's own sources and keys, unpacked, nothing installed.
pub(super) fn bring(cache: &Cache, linux: &Linux) -> Result<PathBuf> {
    let folder = cache.join(format!("rustc-web-{}", linux.debian));
    let wrapper = folder.join("rustc");
    if wrapper.is_file() {
        return Ok(wrapper);
    }
    let work = cache.join(".rustc-web");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    for part in ["lists/partial", "archives/partial", "download", "ready/root"] {
        fs::create_dir_all(work.join(part))?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work.join("download"));
        for (key, value) in [
            ("Dir::State::lists", work.join("lists").display().to_string()),
            ("Dir::Cache::archives", work.join("archives").display().to_string()),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures::", "amd64".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        // Not every mirror carries every architecture: the target's is asked for where packages of it are needed.
        if linux.std_is_packaged {
            command.arg("-o").arg(format!("APT::Architectures::={}", linux.debian));
        }
        run_quietly(command.args(arguments))
    };
    let _busy = Busy::new(&format!("Debian's rustc-web for {}: downloading and unpacking", linux.debian));
    apt(&["update", "--quiet"])?;
    let mut packages: Vec<String> =
        ["rustc-web", "libllvm22", "libstd-rust-web-1.96", "libstd-rust-web-dev"].map(str::to_owned).to_vec();
    if linux.std_is_packaged {
        packages.push(format!("libstd-rust-web-1.96:{}", linux.debian));
        packages.push(format!("libstd-rust-web-dev:{}", linux.debian));
    } else {
        packages.push("rust-web-src".to_owned());
    }
    let mut download = vec!["download", "--quiet", "-o", "APT::Sandbox::User=root"];
    download.extend(packages.iter().map(String::as_str));
    apt(&download)?;
    let unpacked = work.join("ready/root");
    for entry in fs::read_dir(work.join("download"))? {
        run_quietly(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&unpacked))?;
    }
    let root = folder.join("root/usr");
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH=\"{0}/lib/x86_64-linux-gnu:{0}/lib\"\nexec \"{0}/bin/rustc\" --sysroot \"{0}\" \"$@\"\n",
        root.display()
    );
    let ready = work.join("ready");
    fs::write(ready.join("rustc"), script).context("writing the wrapper")?;
    fs::set_permissions(ready.join("rustc"), fs::Permissions::from_mode(0o755))?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(&ready, &folder).with_context(|| format!("moving to {}", folder.display()))?;
    fs::remove_dir_all(&work)?;
    Ok(wrapper)
}
