//! Runs a board's agent on this machine, under qemu's user mode.

use super::Linux;
use crate::{cache::Cache, system};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command, time::Duration};

/// Longest that an emulated run may take.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// The agent's self-test on tract and, where its library is in the cache, on ONNX Runtime; with `model`, of that folder's
/// model and golden inputs.
pub(super) fn selftest(cache: &Cache, agent: &Path, linux: &Linux, model: Option<&Path>) -> Result<()> {
    ensure!(
        system::find(linux.qemu).is_some(),
        "{} is missing: apt-get install qemu-user-static",
        linux.qemu
    );
    let mut emulator = vec![linux.qemu.to_owned(), "-cpu".to_owned(), "max".to_owned()];
    // The target's own C library, where it is installed, is found by itself; both at once loop.
    if !Path::new(linux.loader).exists() {
        emulator.extend(["-L".to_owned(), linux.sysroot.to_owned()]);
    }
    let mut arguments = vec!["selftest".to_owned()];
    if let Some(folder) = model {
        let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
        arguments.extend(["--model".to_owned(), folder.display().to_string()]);
    }
    println!("tract alone, under {}:", linux.qemu);
    let mut command = Command::new("timeout");
    command.arg(RUN_LIMIT.as_secs().to_string()).args(&emulator).arg(agent).args(&arguments);
    command.env_remove("EDGEWRIGHT_ORT");
    ensure!(
        command.status().context("running the emulator")?.success(),
        "the self-test failed under emulation"
    );
    if linux.has_onnxruntime { with_onnxruntime(cache, agent, &emulator, &arguments) } else { Ok(()) }
}

/// ONNX Runtime reads the processor's description, which under emulation is the host's: a private mount shows it an
/// ARM one. That takes root.
fn with_onnxruntime(cache: &Cache, agent: &Path, emulator: &[String], arguments: &[String]) -> Result<()> {
    let library = cache.join("onnxruntime-1.32.0-aarch64/onnxruntime/capi/libonnxruntime.so.1.32.0");
    if !rustix::process::geteuid().is_root() || !library.is_file() {
        println!("ONNX Runtime: skipped, it needs root for a private mount");
        return Ok(());
    }
    println!("ONNX Runtime and tract, under {}:", emulator[0]);
    let description = cache.join("cpuinfo-arm64");
    fs::write(&description, ARM_CPUINFO).context("writing the processor's description")?;
    let mut command = Command::new("timeout");
    command.arg(RUN_LIMIT.as_secs().to_string()).args(["unshare", "--mount", "sh", "-c"]);
    command.arg("mount --bind \"$1\" /proc/cpuinfo && shift && exec \"$@\"").arg("sh").arg(&description);
    command.args(emulator).arg(agent).args(arguments).arg("--ort").arg(&library);
    ensure!(
        command.status().context("running the emulator")?.success(),
        "the self-test with ONNX Runtime failed"
    );
    Ok(())
}

/// A Cortex-A76 as Linux describes it.
const ARM_CPUINFO: &str = "processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

";
