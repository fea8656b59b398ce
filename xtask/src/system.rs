//! What comes as system packages: brought by apt where we are root, named in one line elsewhere.

use crate::setup::run_quietly;
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Once,
};

/// A program that comes as a Debian package.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) packages: &'static [&'static str],
    /// What is skipped without it.
    pub(crate) without: &'static str,
    pub(crate) purpose: Purpose,
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    Tests,
    /// `cargo xtask cross`.
    Cross,
    /// A peer of `cargo xtask bench delivery`.
    Delivery,
}

/// Compiles and links for 64-bit ARM.
pub(crate) const GCC_ARM64: Tool = Tool {
    program: "aarch64-linux-gnu-gcc",
    packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "libstdc++6-arm64-cross"],
    without: "building the agent for arm64",
    purpose: Purpose::Cross,
};

/// Compiles and links for 32-bit ARM; brought only for a board that needs it.
pub(crate) const GCC_ARMHF: Tool = Tool {
    program: "arm-linux-gnueabihf-gcc",
    packages: &["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
    without: "building the agent for 32-bit ARM",
    purpose: Purpose::Cross,
};

/// What `cargo xtask setup` brings.
pub(crate) const TOOLS: &[Tool] = &[
    Tool {
        program: "mosquitto",
        packages: &["mosquitto"],
        without: "tests against the external broker",
        purpose: Purpose::Tests,
    },
    Tool {
        program: "mosquitto_sub",
        packages: &["mosquitto-clients"],
        without: "tests of topic isolation",
        purpose: Purpose::Tests,
    },
    Tool {
        program: "chromium",
        packages: &["chromium", "fonts-dejavu-core"],
        without: "tests of the dashboard in a browser",
        purpose: Purpose::Tests,
    },
    Tool {
        program: "postgres",
        packages: &["postgresql"],
        without: "tests of the store on PostgreSQL, and of several servers",
        purpose: Purpose::Tests,
    },
    Tool { program: "openssl", packages: &["openssl"], without: "tests of EST", purpose: Purpose::Tests },
    Tool { program: "xz", packages: &["xz-utils"], without: "bench forge on text", purpose: Purpose::Tests },
    Tool { program: "curl", packages: &["curl"], without: "tests of EST", purpose: Purpose::Tests },
    Tool {
        program: "qemu-aarch64-static",
        packages: &["qemu-user-static"],
        without: "running the arm64 agent on this machine",
        purpose: Purpose::Cross,
    },
    GCC_ARM64,
    Tool {
        program: "nginx",
        packages: &["nginx-light"],
        without: "bench delivery against HTTPS",
        purpose: Purpose::Delivery,
    },
    Tool {
        program: "zstd",
        packages: &["zstd"],
        without: "deltas of zstd in bench delivery",
        purpose: Purpose::Delivery,
    },
    Tool {
        program: "bsdiff",
        packages: &["bsdiff"],
        without: "deltas of bsdiff in bench delivery",
        purpose: Purpose::Delivery,
    },
    Tool {
        program: "xdelta3",
        packages: &["xdelta3"],
        without: "deltas of xdelta3 in bench delivery",
        purpose: Purpose::Delivery,
    },
];

/// Folder with a folder for each version of PostgreSQL: Debian keeps its programs off the path.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Where a program is, by PATH and where Debian keeps what is on no user's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let versions = fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    let postgresql = versions.map(|version| version.path().join("bin"));
    std::env::split_paths(&folders)
        .chain(sbin)
        .chain(postgresql)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Brings the programs of [`TOOLS`] that are missing, for these purposes.
pub(crate) fn bring(purposes: &[Purpose]) -> Result<()> {
    let wanted: Vec<&Tool> = TOOLS.iter().filter(|tool| purposes.contains(&tool.purpose)).collect();
    bring_tools(&wanted)
}

/// Brings those of `tools` that are missing, or says how to get them and what is skipped without.
pub(crate) fn bring_tools(tools: &[&Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|tool| tool.packages.iter().copied()).collect();
    if !rustix::process::geteuid().is_root() || find("apt-get").is_none() {
        let skipped: Vec<&str> = missing.iter().map(|tool| tool.without).collect();
        eprintln!("skipped without them: {}", skipped.join("; "));
        eprintln!("to get them run: sudo apt-get install {}", packages.join(" "));
        return Ok(());
    }
    update_lists_once(packages[0]);
    eprintln!("installing {}", packages.join(" "));
    let _quiet = NoServices::until_dropped()?;
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends", "--quiet"]).args(&packages);
    run_quietly(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1").stdin(Stdio::null()))
}

/// Keeps the packages' own services from starting: tests start brokers of their own, on loopback. Debian's rule for
/// that is a policy script; one that is there already is the machine's and stays.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn until_dropped() -> Result<Self> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match file {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("writing {POLICY}"))?;
                Ok(Self { ours: true })
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("writing {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// Fetches apt's lists where it does not know `package` yet and we may.
pub(crate) fn update_lists_once(package: &str) {
    static ONCE: Once = Once::new();
    let known = Command::new("apt-cache")
        .args(["show", package])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if known || !rustix::process::geteuid().is_root() {
        return;
    }
    ONCE.call_once(|| {
        if let Err(error) = run_quietly(Command::new("apt-get").args(["update", "--quiet"])) {
            eprintln!("{error:#}");
        }
    });
}
