//! The cache folder, outside the checkout, and what children are told about it.

use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where everything that is downloaded or built is kept.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// `EDGEWRIGHT_CACHE`, else `XDG_CACHE_HOME/edgewright`, else `~/.cache/edgewright`.
    pub(crate) fn find() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("EDGEWRIGHT_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("edgewright")))
            .or_else(|| set("HOME").map(|folder| folder.join(".cache/edgewright")))
            .context("no cache folder: set EDGEWRIGHT_CACHE")?;
        let folder = std::path::absolute(folder).context("finding the cache folder")?;
        Ok(Self(folder))
    }

    /// A path inside.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where cargo builds: `CARGO_TARGET_DIR`, else a folder in the cache.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.join("target"), PathBuf::from)
    }

    /// ONNX Runtime's library.
    pub(crate) fn ort(&self) -> PathBuf {
        self.join("onnxruntime-1.32.0/onnxruntime/capi/libonnxruntime.so.1.32.0")
    }

    /// A child that knows the cache: cargo, or one of our programs.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("EDGEWRIGHT_CACHE", &self.0)
            .env("EDGEWRIGHT_ORT", self.ort())
            .env("EDGEWRIGHT_BIN", self.target().join("debug"))
            .env("LIBTORCH", self.join("libtorch-2.13.0/torch"))
            .env("CARGO_TARGET_DIR", self.target());
        command
    }

    /// The same for a person's shell, with our programs in `PATH`.
    pub(crate) fn exports(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        format!(
            "export EDGEWRIGHT_CACHE={}\nexport EDGEWRIGHT_ORT={}\nexport PATH={}:\"$PATH\"\n",
            quoted(&self.0),
            quoted(&self.ort()),
            quoted(&self.target().join("debug"))
        )
    }

    /// `cargo`, the one that runs this program. What it has told this program about its package is kept from it: build
    /// scripts look at those variables, and would run again, and all that hangs on them, whenever a person's own
    /// `cargo build` came between.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                cargo.env_remove(name);
            }
        }
        cargo
    }
}

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_the_exports_whatever_the_folder_is_called() {
        let cache = Cache(PathBuf::from("/a b/it's"));
        let script = format!("{}printf %s \"$EDGEWRIGHT_CACHE\"", cache.exports());
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/a b/it's");
    }
}
