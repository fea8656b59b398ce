//! Results of a job with one thing changed, to be published as versions of their own.

use crate::harness::copy_folder;
use anyhow::{Context, Result};
use safetensors::{SafeTensors, tensor::TensorView};
use std::path::Path;

/// Field 6 of an ONNX `ModelProto`, length-delimited: its `doc_string`.
const DOC_STRING_TAG: u8 = 6 << 3 | 2;

/// Copies the result folder `from` to `to`; the model gets a doc string of `text`, which makes it another file
/// that computes the same.
pub fn with_doc_string(from: &Path, to: &Path, text: &str) -> Result<()> {
    copy_folder(from, to)?;
    let path = to.join(shared::manifest::MODEL_FILE);
    let mut model = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    push_doc_string(&mut model, text.as_bytes());
    std::fs::write(&path, model).with_context(|| format!("writing {}", path.display()))
}

/// Ends an ONNX file with a doc string of `text`, which nothing reads.
pub fn push_doc_string(model: &mut Vec<u8>, text: &[u8]) {
    model.push(DOC_STRING_TAG);
    let mut length = text.len();
    while length >= 0x80 {
        model.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    model.push((length & 0x7f) as u8);
    model.extend_from_slice(text);
}

/// Copies the result folder `from` to `to` with each golden output replaced by that of the next golden input.
pub fn with_wrong_golden(from: &Path, to: &Path) -> Result<()> {
    with_doc_string(from, to, "golden outputs moved by one")?;
    let path = to.join(shared::manifest::GOLDEN_FILE);
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let golden = SafeTensors::deserialize(&bytes).context("reading the golden file")?;
    let output = golden.tensor("output").context("the golden file has no outputs")?;
    let row = output.data().len() / output.shape()[0];
    let mut moved = output.data().to_vec();
    moved.rotate_left(row);
    let tensors = [
        ("input", golden.tensor("input").context("the golden file has no inputs")?),
        ("output", TensorView::new(output.dtype(), output.shape().to_vec(), &moved)?),
    ];
    let written = safetensors::serialize(tensors, None)?;
    std::fs::write(&path, written).with_context(|| format!("writing {}", path.display()))
}

/// Text that does not compress, of `size` bytes, always the same.
pub fn noise(size: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    (0..size).map(|_| next()).collect()
}
