//! Checkpoints: one safetensors file with the state of the job in its header, replaced whole.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};
use tch::Tensor;

use crate::params::to_vec;

/// The file in the checkpoint's folder.
const FILE: &str = "state.safetensors";
/// Key of the state in the file's header.
const STATE_KEY: &str = "state";
/// What to do about a checkpoint that cannot be used.
const AFRESH: &str = "delete it to start afresh";
/// Largest file of tensors that is read, and that a checkpoint is written to.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why tensors cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{}: cannot be {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what this module writes.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Named values with their shapes.
pub type Named = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// A checkpoint folder.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
}

impl Checkpoint {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(|source| io(dir, "made", source))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The folder, whether or not it is there.
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Replaces the checkpoint. A crash at any point leaves the old one or the new one.
    ///
    /// # Errors
    /// The disk refused; the old checkpoint is still there.
    pub fn save<S: Serialize>(&self, state: &S, tensors: &[(&str, Tensor)]) -> Result<(), Error> {
        let path = self.dir.join(FILE);
        let state = serde_json::to_string(state).map_err(|error| damaged(&path, error.to_string()))?;
        let named: Vec<(String, Vec<usize>, Vec<f32>)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let shape = tensor.size().iter().map(|axis| usize::try_from(*axis).unwrap_or(0)).collect();
                ((*name).to_owned(), shape, to_vec(tensor))
            })
            .collect();
        let bytes = encode(&named, Some((STATE_KEY, state))).map_err(|message| damaged(&path, message))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let message = format!(
                "a checkpoint of {} bytes is over the limit of {FILE_BYTES_MAX}: lower the budget's channels",
                bytes.len()
            );
            return Err(damaged(&path, message));
        }
        write_whole(&path, &bytes)
    }

    /// The newest checkpoint, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load<S: DeserializeOwned>(&self) -> Result<Option<(S, Named)>, Error> {
        let path = self.dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let (header, named) = read(&path).map_err(|error| match error {
            Error::Damaged { path, message } => damaged(&path, format!("{message}: {AFRESH}")),
            error @ Error::Io { .. } => error,
        })?;
        let state = header.get(STATE_KEY).map(String::as_str).unwrap_or_default();
        let state = serde_json::from_str(state)
            .map_err(|error| damaged(&path, format!("no checkpoint of this version ({error}): {AFRESH}")))?;
        Ok(Some((state, named)))
    }

    /// Removes the folder, if it is there; the job is done.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(io(&self.dir, "removed", source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Copies tensors of a checkpoint, which `tensor` gives by name, to where they belong.
///
/// # Errors
/// A sentence that names the first that is missing or has another number of values.
pub fn copy_back(
    into: &[(&str, Tensor)],
    mut tensor: impl FnMut(&str) -> Option<Tensor>,
) -> Result<(), String> {
    for (name, into) in into {
        let found = tensor(name).ok_or_else(|| format!("the checkpoint lacks {name}"))?;
        if found.numel() != into.numel() {
            return Err(format!(
                "{name} in the checkpoint has {} values, not {}",
                found.numel(),
                into.numel()
            ));
        }
        tch::no_grad(|| into.detach().copy_(&found.reshape(into.size())));
    }
    Ok(())
}

/// Bytes of a safetensors file.
///
/// # Errors
/// A sentence, if the tensors contradict their shapes.
pub fn encode(
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: Option<(&str, String)>,
) -> Result<Vec<u8>, String> {
    let raw: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, shape, _), bytes) in tensors.iter().zip(&raw) {
        let view =
            TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|error| format!("{name}: {error}"))?;
        views.push((name.as_str(), view));
    }
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value)]));
    safetensors::serialize(views, metadata).map_err(|error| error.to_string())
}

/// Header and tensors of a safetensors file of f32 values.
///
/// # Errors
/// Missing, too large, cut, or of another type.
pub fn read(path: &Path) -> Result<(HashMap<String, String>, Named), Error> {
    let size = fs::metadata(path).map_err(|source| io(path, "read", source))?.len();
    if size > FILE_BYTES_MAX {
        return Err(damaged(path, format!("{size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    let bytes = fs::read(path).map_err(|source| io(path, "read", source))?;
    let no = |error: safetensors::SafeTensorError| damaged(path, format!("no safetensors file: {error}"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(no)?;
    let header = metadata.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(no)?;
    let mut named = Named::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(path, format!("{name} is not of type F32")));
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
        named.insert(name, (view.shape().to_vec(), values));
    }
    Ok((header, named))
}

/// Writes a file under another name, makes it durable, and moves it into place.
///
/// # Errors
/// The disk refused; what was there before is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_parent(path)
    };
    write().map_err(|source| {
        // On a full disk the part that fitted only takes room.
        let _ = fs::remove_file(&temporary);
        io(path, "written", source)
    })
}

/// Makes a rename in the folder of `path` durable.
///
/// # Errors
/// The disk refused.
pub fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), action, source }
}

fn damaged(path: &Path, message: String) -> Error {
    Error::Damaged { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_as_it_was_and_a_cut_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.load::<u32>().unwrap().is_none());
        checkpoint.save(&7u32, &[("a", Tensor::from_slice(&[1.0f32, -2.5]).reshape([2, 1]))]).unwrap();
        let (state, named) = checkpoint.load::<u32>().unwrap().unwrap();
        assert_eq!((state, &named["a"]), (7, &(vec![2, 1], vec![1.0, -2.5])));
        let path = folder.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let error = checkpoint.load::<u32>().unwrap_err().to_string();
            assert!(error.ends_with("delete it to start afresh"), "{end} bytes: {error}");
        }
        checkpoint.clone().remove().unwrap();
        assert!(!folder.path().exists());
        checkpoint.remove().unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_put_in_its_place_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // A folder that is not empty cannot be replaced by a file.
        let path = folder.path().join("taken.bin");
        fs::create_dir_all(path.join("inner")).unwrap();
        assert!(matches!(write_whole(&path, b"values"), Err(Error::Io { action: "written", .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
