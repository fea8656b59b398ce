//! Stops a program at each of its system calls.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the end-to-end tests and benches run on x86-64");

use super::{CUT_STATUS, Fault, Options, calls, record::Writer};
use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    libc::{self, user_regs_struct},
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::HashMap,
    io::Write,
    process::{Child, Command, Stdio},
};

/// Waits for a line, then becomes the program: so that it is traced from its first instruction on.
const GATE: &str = "read -r go; exec \"$@\"";
const HOW_TO_ALLOW: &str = "tracing is not permitted here; allow it with `sysctl kernel.yama.ptrace_scope=1`, or start \
                            the container with --cap-add=SYS_PTRACE";

/// What a thread waits for at the end of the call that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The call did not happen: it says that the disk is full.
    Full,
    /// The power goes.
    Cut,
}

struct Tracer<'a> {
    options: &'a Options,
    leader: Pid,
    record: Writer,
    endings: HashMap<Pid, Ending>,
    /// One operation has found the disk full.
    refused: bool,
    cut: bool,
}

pub(super) fn run(options: &Options) -> Result<u8> {
    let mut child = Command::new("sh")
        .args(["-c", GATE, "sh"])
        .args(&options.command)
        .stdin(Stdio::piped())
        .spawn()
        .context("starting a shell")?;
    let leader = seize(&child)?;
    let record = Writer::create(&options.record, child.id())?;
    let mut gate = child.stdin.take().context("the shell has no input")?;
    gate.write_all(b"\n").context("starting the program")?;
    drop(gate);
    Tracer { options, leader, record, endings: HashMap::new(), refused: false, cut: false }.follow()
}

pub(super) fn check() -> Result<()> {
    let mut child = Command::new("sleep").arg("10").stdin(Stdio::null()).spawn().context("starting sleep")?;
    let seized = seize(&child);
    let _ = child.kill();
    let _ = child.wait();
    seized.map(|_| ())
}

/// Traces a process that was just started. It ends with this one.
fn seize(child: &Child) -> Result<Pid> {
    let pid = Pid::from_raw(i32::try_from(child.id()).context("process id out of range")?);
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACEFORK
        | ptrace::Options::PTRACE_O_TRACEVFORK
        | ptrace::Options::PTRACE_O_TRACEEXEC
        | ptrace::Options::PTRACE_O_EXITKILL;
    match ptrace::seize(pid, options) {
        Ok(()) => Ok(pid),
        Err(Errno::EPERM | Errno::ENOSYS) => bail!(HOW_TO_ALLOW),
        Err(error) => Err(error).context("tracing the program"),
    }
}

impl Tracer<'_> {
    /// Until no thread is left.
    fn follow(mut self) -> Result<u8> {
        let mut status = 1;
        loop {
            let stopped = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL)) {
                Ok(stopped) => stopped,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error).context("waiting for the program"),
            };
            match stopped {
                WaitStatus::PtraceSyscall(thread)
                | WaitStatus::PtraceEvent(thread, ..)
                | WaitStatus::Stopped(thread, _)
                    if self.cut =>
                {
                    // Of another process, or of a thread that has not felt it yet.
                    still_there(kill(thread, Signal::SIGKILL))?;
                    go_on(thread, None)?;
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.at_call(thread)?;
                    go_on(thread, None)?;
                }
                WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None)?,
                WaitStatus::Stopped(thread, signal) => go_on(thread, Some(signal))?,
                WaitStatus::Exited(thread, code) if thread == self.leader => {
                    status = u8::try_from(code).unwrap_or(1);
                }
                WaitStatus::Signaled(thread, ..) if thread == self.leader => status = CUT_STATUS,
                _ => {}
            }
        }
        Ok(if self.cut { CUT_STATUS } else { status })
    }

    fn at_call(&mut self, thread: Pid) -> Result<()> {
        let Some(info) = still_there(ptrace::syscall_info(thread))? else { return Ok(()) };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            return self.at_end(thread);
        }
        let Some(mut registers) = still_there(ptrace::getregs(thread))? else { return Ok(()) };
        let Some(mut call) = calls::read(thread.as_raw(), &registers, &self.options.root) else {
            return Ok(());
        };
        let Options { at, fault, .. } = *self.options;
        let number = self.record.count + 1;
        let full = match fault {
            Fault::Kill | Fault::Torn => false,
            Fault::FullOnce => !self.refused,
            Fault::FullOn => true,
        };
        if full && at > 0 && number >= at && call.takes_space {
            self.refused = true;
            call.operation.refused = true;
            // No such call: the kernel does nothing.
            registers.orig_rax = u64::MAX;
            self.end_with(thread, registers, Ending::Full)?;
        }
        self.record.push(&call.operation)?;
        if fault.ends_it() && number == at {
            let half_bytes = registers.rdx / 2;
            if fault == Fault::Torn && call.is_write && half_bytes > 0 {
                registers.rdx = half_bytes;
                self.end_with(thread, registers, Ending::Cut)?;
            } else {
                self.cut_power(thread)?;
            }
        }
        Ok(())
    }

    fn end_with(&mut self, thread: Pid, registers: user_regs_struct, ending: Ending) -> Result<()> {
        still_there(ptrace::setregs(thread, registers))?;
        self.endings.insert(thread, ending);
        Ok(())
    }

    fn at_end(&mut self, thread: Pid) -> Result<()> {
        match self.endings.remove(&thread) {
            Some(Ending::Full) => {
                let Some(mut registers) = still_there(ptrace::getregs(thread))? else { return Ok(()) };
                registers.rax = (-i64::from(libc::ENOSPC)).cast_unsigned();
                still_there(ptrace::setregs(thread, registers)).map(|_| ())
            }
            Some(Ending::Cut) => self.cut_power(thread),
            None => Ok(()),
        }
    }

    /// Ends the whole program at once: a thread that is stopped before a call does not make it.
    fn cut_power(&mut self, thread: Pid) -> Result<()> {
        self.cut = true;
        still_there(kill(thread, Signal::SIGKILL))?;
        still_there(kill(self.leader, Signal::SIGKILL)).map(|_| ())
    }
}

fn go_on(thread: Pid, signal: Option<Signal>) -> Result<()> {
    still_there(ptrace::syscall(thread, signal)).map(|_| ())
}

/// Nothing where the thread has ended meanwhile.
fn still_there<T>(result: nix::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ESRCH) => Ok(None),
        Err(error) => Err(error).context("tracing the program"),
    }
}
