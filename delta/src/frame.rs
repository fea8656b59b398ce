//! One zstd frame (RFC 8878): made with long-distance matching over a prefix, read at once into memory of a size that
//! is known before.

use crate::Error;
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx};

/// Level of compression for what is small enough to take the time.
const LEVEL: i32 = 19;
/// Level for what is larger than [`LARGE_BYTES`].
const LEVEL_LARGE: i32 = 9;
/// From this size on, file and prefix together, time counts more than the last per cent.
const LARGE_BYTES: usize = 32 * 1024 * 1024;
/// The largest window that zstd has on every machine.
const WINDOW_LOG_MAX: u32 = 30;
const WINDOW_LOG_MIN: u32 = 10;

/// Compresses `bytes` into one frame that declares its size. `prefix` has to be there when it is read.
pub(crate) fn compress(bytes: &[u8], prefix: &[u8]) -> Result<Vec<u8>, Error> {
    let in_view = bytes.len().saturating_add(prefix.len());
    let window_log = (in_view.max(1).ilog2() + 1).clamp(WINDOW_LOG_MIN, WINDOW_LOG_MAX);
    let level = if in_view > LARGE_BYTES { LEVEL_LARGE } else { LEVEL };
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window_log),
        CParameter::EnableLongDistanceMatching(true),
        CParameter::ContentSizeFlag(true),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(failed)?;
    }
    let mut out = room(zstd_safe::compress_bound(bytes.len()))?;
    context.compress2(&mut out, bytes).map_err(failed)?;
    Ok(out)
}

/// Reads one frame that is all of `frame` and gives exactly `size_bytes`. What zstd takes beside that is the same for
/// every frame: the window is the output itself.
pub(crate) fn decompress(frame: &[u8], size_bytes: usize, prefix: &[u8]) -> Result<Vec<u8>, Error> {
    let declared = zstd_safe::get_frame_content_size(frame)
        .map_err(|_| Error::Form("a section is no zstd frame"))?
        .ok_or(Error::Form("a section does not declare its size"))?;
    if declared != size_bytes as u64 {
        return Err(Error::Length { got_bytes: declared, expected_bytes: size_bytes as u64 });
    }
    if zstd_safe::find_frame_compressed_size(frame).map_err(failed)? != frame.len() {
        return Err(Error::Form("a section is not one frame alone"));
    }
    let mut out = room(size_bytes)?;
    let mut context = DCtx::create();
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(failed)?;
    }
    let got = context.decompress(&mut out, frame).map_err(failed)?;
    if got != size_bytes || out.len() != size_bytes {
        return Err(Error::Length { got_bytes: got as u64, expected_bytes: size_bytes as u64 });
    }
    Ok(out)
}

/// An empty vector with room for `size_bytes`, if there is so much memory.
pub(crate) fn room(size_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(size_bytes).map_err(|_| Error::Memory(size_bytes as u64))?;
    Ok(out)
}

fn failed(code: zstd_safe::ErrorCode) -> Error {
    Error::Frame(zstd_safe::get_error_name(code).to_owned())
}
