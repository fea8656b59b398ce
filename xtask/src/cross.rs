//! `cargo xtask cross`: the agent, built for a board on this machine, and run under emulation.
//!
//! Three ways, the first that is there: the installed toolchain has the target's standard library; `cross` with a
//! running docker; Debian's `rustc-web`, unpacked into the cache without touching the system. No toolchain is ever
//! fetched by rustup.

mod emulate;
mod rustc_web;

use crate::{
    boards,
    cache::{Cache, root},
    setup::{self, Wanted},
    system::{self, Tool},
};
use anyhow::{Context, Result, bail, ensure};
use shared::board::Board;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// Options of the command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// A board of `firmware-configs/`.
    #[arg(long)]
    board: String,
    /// Run the built agent's self-test under qemu-user.
    #[arg(long)]
    run: bool,
    /// With `--run`: also classify the golden inputs of this result or bundle folder.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only check that everything compiles for the board.
    #[arg(long)]
    check: bool,
}

/// How the target is compiled for.
#[derive(Debug)]
enum Way {
    /// The installed toolchain.
    Installed,
    /// `cross` in docker.
    Cross,
    /// Debian's compiler in the cache; the wrapper to set `RUSTC` to.
    RustcWeb(PathBuf),
}

/// What a target needs beside rustc.
#[derive(Clone, Copy, Debug)]
struct Linux {
    /// Debian's name of the architecture.
    debian: &'static str,
    gcc: Tool,
    qemu: &'static str,
    /// Where Debian's cross packages keep the target's C library.
    sysroot: &'static str,
    /// The target's own loader, where its C library is installed beside this machine's.
    loader: &'static str,
    /// Debian has the standard library of the same compiler; otherwise it is built from source.
    std_is_packaged: bool,
    /// There is an ONNX Runtime for it in the cache.
    has_onnxruntime: bool,
}

const ARM64: Linux = Linux {
    debian: "arm64",
    gcc: system::GCC_ARM64,
    qemu: "qemu-aarch64-static",
    sysroot: "/usr/aarch64-linux-gnu",
    loader: "/lib/ld-linux-aarch64.so.1",
    std_is_packaged: true,
    has_onnxruntime: true,
};

const ARMHF: Linux = Linux {
    debian: "armhf",
    gcc: system::GCC_ARMHF,
    qemu: "qemu-arm-static",
    sysroot: "/usr/arm-linux-gnueabihf",
    loader: "/lib/ld-linux-armhf.so.3",
    std_is_packaged: false,
    has_onnxruntime: false,
};

fn linux(target: &str) -> Result<Option<Linux>> {
    match target {
        "x86_64-unknown-linux-gnu" => Ok(None),
        "aarch64-unknown-linux-gnu" => Ok(Some(ARM64)),
        "armv7-unknown-linux-gnueabihf" => Ok(Some(ARMHF)),
        other => bail!("no way is known to build for {other}"),
    }
}

/// Builds, measures, and runs where asked to.
pub(crate) fn run(cache: &Cache, options: &Options) -> Result<()> {
    let board = boards::load(&options.board)?;
    setup::run(cache, Wanted { cross: true, ..Wanted::default() })?;
    let linux = linux(&board.target)?;
    if let Some(linux) = &linux {
        system::bring_tools(&[&linux.gcc])?;
    }
    let way = find_way(cache, &board.target, linux.as_ref())?;
    eprintln!("building for {} ({}) with {}", board.name, board.target, way.name());
    let target_dir = cache.target().join("cross");
    let started = Instant::now();
    let status = cargo(cache, &way, &board, linux.as_ref(), options.check)
        .env("CARGO_TARGET_DIR", &target_dir)
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the build for {} failed: {status}", board.target);
    if options.check {
        println!("{}: the agent compiles for {}", board.id, board.target);
        return Ok(());
    }
    let agent = target_dir.join(&board.target).join("board/edgewright-agent");
    let size = fs::metadata(&agent).with_context(|| format!("reading {}", agent.display()))?.len();
    println!("built    {} in {:.0} s", agent.display(), started.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss)]
    let mib = size as f64 / 1_048_576.0;
    println!("size     {size} bytes ({mib:.1} MiB)");
    println!("glibc    {} or newer", glibc_floor(&agent)?);
    if options.run {
        let Some(linux) = linux else {
            bail!("this board's target is this machine's: run {} selftest", agent.display())
        };
        emulate::selftest(cache, &agent, &linux, options.model.as_deref())?;
    }
    Ok(())
}

fn cargo(cache: &Cache, way: &Way, board: &Board, linux: Option<&Linux>, check: bool) -> Command {
    let mut cargo = way.cargo(cache);
    cargo.arg(if check { "check" } else { "build" });
    cargo.args(["--package", "edgewright-agent", "--bin", "edgewright-agent"]);
    cargo.args(["--profile", "board", "--locked", "--target", &board.target]);
    if let (Some(linux), false) = (linux, matches!(way, Way::Cross)) {
        let name = board.target.replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), linux.gcc.program);
        cargo.env(format!("CC_{name}"), linux.gcc.program);
        if matches!(way, Way::RustcWeb(_)) && !linux.std_is_packaged {
            cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_unwind");
        }
    }
    cargo
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Installed => "the installed toolchain",
            Self::Cross => "cross",
            Self::RustcWeb(_) => "Debian's rustc-web",
        }
    }

    fn cargo(&self, cache: &Cache) -> Command {
        match self {
            Self::Installed => cache.cargo(),
            Self::Cross => {
                let mut command = cache.command("cross");
                command.env("CROSS_CONFIG", root().join("cross.toml"));
                command
            }
            Self::RustcWeb(wrapper) => {
                let mut command = cache.cargo();
                // Another compiler than the installed one: no wrapper of the caller may mix the two.
                command
                    .env("RUSTC", wrapper)
                    .env_remove("RUSTC_WRAPPER")
                    .env_remove("CARGO_ENCODED_RUSTFLAGS");
                command
            }
        }
    }
}

fn find_way(cache: &Cache, target: &str, linux: Option<&Linux>) -> Result<Way> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let libraries = libraries.context("running rustc")?;
    if libraries.status.success() && Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        return Ok(Way::Installed);
    }
    let quiet = |program: &str, argument: &str| {
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    // `cross` itself is never asked: it changes toolchains before it looks for docker.
    if system::find("cross").is_some() && quiet("docker", "info").is_ok_and(|status| status.success()) {
        return Ok(Way::Cross);
    }
    let linux = linux.context("this machine's own target is not installed")?;
    rustc_web::bring(cache, linux).map(Way::RustcWeb).with_context(|| {
        format!("no way to build for {target}: `rustup target add {target}` where rustup is there, or docker with cross")
    })
}

/// The newest version of glibc that the program asks for.
fn glibc_floor(path: &Path) -> Result<String> {
    let output = Command::new("readelf")
        .arg("--version-info")
        .arg(path)
        .output()
        .context("running readelf (binutils)")?;
    ensure!(output.status.success(), "readelf does not read {}", path.display());
    let text = String::from_utf8_lossy(&output.stdout);
    newest_glibc(&text).with_context(|| format!("{} asks for no glibc", path.display()))
}

fn newest_glibc(text: &str) -> Option<String> {
    let versions = text.split("GLIBC_").skip(1).filter_map(|rest| {
        let number = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        number.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()
    });
    versions.max().map(|parts| parts.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_found_by_number_not_by_text() {
        let text = "0x01 Name: GLIBC_2.9 Flags\n Name: GLIBC_2.34  Flags\n Name: GLIBC_2.4";
        assert_eq!(newest_glibc(text).unwrap(), "2.34");
        assert_eq!(newest_glibc("nothing"), None);
    }
}
