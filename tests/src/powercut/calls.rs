//! Which system calls change files, and what they say of them.

use super::record::Operation;
use nix::libc::{self, user_regs_struct};
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
};

/// Where a call names its file, by the number of the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    /// A file descriptor.
    Open(usize),
    /// A path.
    Path(usize),
    /// A folder's descriptor, and a path in the argument behind it.
    At(usize),
    /// Nowhere.
    Unnamed,
}

/// A kind of system call.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    file: File,
    /// The argument that says how many bytes are written.
    size: Option<usize>,
    /// The argument that says where.
    offset: Option<usize>,
    /// Fails where the disk is full.
    takes_space: bool,
}

/// Most bytes of a path.
const PATH_BYTES_MAX: usize = 4096;

const fn kind(name: &'static str, file: File, takes_space: bool) -> Option<Kind> {
    Some(Kind { name, file, size: None, offset: None, takes_space })
}

/// The kind of call `number`, if it changes files. `argument` gives its arguments.
fn kind_of(number: i64, argument: impl Fn(usize) -> u64) -> Option<Kind> {
    let creates = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0;
    match number {
        libc::SYS_write => {
            Some(Kind { name: "write", file: File::Open(0), size: Some(2), offset: None, takes_space: true })
        }
        libc::SYS_pwrite64 => Some(Kind {
            name: "pwrite64",
            file: File::Open(0),
            size: Some(2),
            offset: Some(3),
            takes_space: true,
        }),
        libc::SYS_writev => kind("writev", File::Open(0), true),
        libc::SYS_pwritev => kind("pwritev", File::Open(0), true),
        libc::SYS_pwritev2 => kind("pwritev2", File::Open(0), true),
        libc::SYS_copy_file_range => kind("copy_file_range", File::Open(2), true),
        libc::SYS_sendfile => kind("sendfile", File::Open(0), true),
        libc::SYS_fsync => kind("fsync", File::Open(0), true),
        libc::SYS_fdatasync => kind("fdatasync", File::Open(0), true),
        libc::SYS_sync_file_range => kind("sync_file_range", File::Open(0), true),
        libc::SYS_msync => kind("msync", File::Unnamed, false),
        libc::SYS_ftruncate => kind("ftruncate", File::Open(0), true),
        libc::SYS_truncate => kind("truncate", File::Path(0), true),
        libc::SYS_fallocate => kind("fallocate", File::Open(0), true),
        libc::SYS_rename => kind("rename", File::Path(0), true),
        libc::SYS_renameat => kind("renameat", File::At(0), true),
        libc::SYS_renameat2 => kind("renameat2", File::At(0), true),
        libc::SYS_unlink => kind("unlink", File::Path(0), false),
        libc::SYS_unlinkat => kind("unlinkat", File::At(0), false),
        libc::SYS_rmdir => kind("rmdir", File::Path(0), false),
        libc::SYS_link => kind("link", File::Path(1), true),
        libc::SYS_linkat => kind("linkat", File::At(2), true),
        libc::SYS_mkdir => kind("mkdir", File::Path(0), true),
        libc::SYS_mkdirat => kind("mkdirat", File::At(0), true),
        libc::SYS_creat => kind("creat", File::Path(0), true),
        libc::SYS_open if creates(argument(1)) => kind("open", File::Path(0), true),
        libc::SYS_openat if creates(argument(2)) => kind("openat", File::At(0), true),
        _ => None,
    }
}

/// A call that is about to change a file.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    /// The disk being full would make it fail.
    pub(super) takes_space: bool,
    /// Writes bytes, so that it can be cut short.
    pub(super) is_write: bool,
}

/// The call that thread `thread` is about to make, if it changes a file below `root`.
pub(super) fn read(thread: i32, registers: &user_regs_struct, root: &Path) -> Option<Call> {
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let argument = |at: usize| arguments[at];
    let kind = kind_of(i64::try_from(registers.orig_rax).ok()?, argument)?;
    let path = match kind.file {
        File::Unnamed => PathBuf::new(),
        File::Open(at) => below(root, &opened(thread, argument(at))?)?,
        File::Path(at) => below(root, &text(thread, argument(at))?)?,
        File::At(at) => {
            let path = text(thread, argument(at + 1))?;
            let path = if path.is_absolute() { path } else { opened(thread, argument(at))?.join(path) };
            below(root, &path)?
        }
    };
    let operation = Operation {
        call: kind.name.to_owned(),
        path: path.to_string_lossy().into_owned(),
        size_bytes: kind.size.map_or(0, argument),
        offset: kind.offset.map(argument),
        refused: false,
    };
    Some(Call { operation, takes_space: kind.takes_space, is_write: kind.size.is_some() })
}

fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(root).ok().map(Path::to_path_buf)
}

/// The file that a descriptor stands for; of a process's working folder too.
fn opened(thread: i32, descriptor: u64) -> Option<PathBuf> {
    // Descriptors are signed 32-bit numbers in 64-bit registers.
    #[expect(clippy::cast_possible_truncation)]
    let descriptor = descriptor as i32;
    if descriptor == libc::AT_FDCWD {
        return fs::read_link(format!("/proc/{thread}/cwd")).ok();
    }
    fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()
}

/// The path at an address of the program's memory.
fn text(thread: i32, address: u64) -> Option<PathBuf> {
    let memory = fs::File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes = Vec::new();
    let mut block = [0; 256];
    while bytes.len() < PATH_BYTES_MAX {
        let from = address.checked_add(bytes.len() as u64)?;
        // Not past the end of a page: the next one may not be there.
        let left = usize::try_from(4096 - from % 4096).ok()?.min(block.len());
        let count = memory.read_at(&mut block[..left], from).ok().filter(|&count| count > 0)?;
        if let Some(end) = block[..count].iter().position(|&byte| byte == 0) {
            bytes.extend(&block[..end]);
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)));
        }
        bytes.extend(&block[..count]);
    }
    None
}
