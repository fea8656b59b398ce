//! Backups: one file that a control plane can be made of again.
//!
//! A tar, compressed with zstd. It begins with `manifest.json`, which names every other file with its size and digest: the
//! database as it was at one moment, then the blobs that it names (there before it names them, and never changed), the trust
//! metadata, and where that was asked for the keys. What jobs have left to go on from is not in it.

use crate::{
    repository::Folder,
    store::{self, Database},
};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use shared::{Digest, Timestamp, digest::Hasher};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the backup's form.
    pub form: u32,
    /// The program that made it.
    pub program: String,
    pub made_at: Timestamp,
    /// It was PostgreSQL's and not SQLite's database.
    pub postgres: bool,
    pub keys: bool,
    pub files: BTreeMap<String, Facts>,
}

/// What is known of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub size_bytes: u64,
    pub sha256: Digest,
}

const FORM: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MANIFEST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Folders of the data folder that go into a backup.
const BLOBS: &str = "blobs";
const TRUST: &str = "trust";
const KEYS: &str = "keys";
const LEVEL: i32 = 3;

/// Writes a backup of the data folder `data` and its database into the file `out`, which is there whole or not at all.
/// Servers may go on working.
///
/// # Errors
/// `out` is there already, or something cannot be read.
pub async fn write(data: &Path, database: &Database, keys: bool, out: &Path) -> Result<Manifest> {
    ensure!(!out.exists(), "{} is there already; give another --out", out.display());
    let partial = out.with_extension("partial");
    let written = write_partial(data, database, keys, &partial).await;
    let copy = partial.with_extension("database");
    // The error that matters is the first one.
    let _ = fs::remove_file(copy);
    match written {
        Ok(manifest) => {
            fs::rename(&partial, out).with_context(|| format!("renaming to {}", out.display()))?;
            Ok(manifest)
        }
        Err(error) => {
            let _ = fs::remove_file(&partial);
            Err(error)
        }
    }
}

async fn write_partial(data: &Path, database: &Database, keys: bool, partial: &Path) -> Result<Manifest> {
    let copy = partial.with_extension("database");
    let _ = fs::remove_file(&copy);
    store::backup::copy(data, database, &copy).await.context("copying the database")?;
    let mut sources = BTreeMap::from([(store::backup::file_name(database).to_owned(), copy)]);
    let folder = Folder::at(data.join(TRUST));
    // Read as a whole it belongs together.
    let trust = folder.read().context("reading the trust metadata")?.map(|repository| repository.files());
    for (name, path) in files_in(&data.join(BLOBS), "")? {
        // What is half written has no digest for a name.
        if name.parse::<Digest>().is_ok() {
            sources.insert(format!("{BLOBS}/{name}"), path);
        }
    }
    if keys {
        let found = files_in(&data.join(KEYS), "")?;
        sources.extend(found.into_iter().map(|(name, path)| (format!("{KEYS}/{name}"), path)));
    }
    let mut files = BTreeMap::new();
    for (name, path) in &sources {
        files.insert(name.clone(), facts_of(path)?);
    }
    let trust: BTreeMap<String, Vec<u8>> =
        trust.into_iter().flatten().map(|(name, bytes)| (format!("{TRUST}/{name}"), bytes)).collect();
    for (name, bytes) in &trust {
        files.insert(name.clone(), Facts { size_bytes: bytes.len() as u64, sha256: Digest::of(bytes) });
    }
    let manifest = Manifest {
        form: FORM,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: crate::app::now(),
        postgres: database.is_shared(),
        keys,
        files,
    };
    let file = File::create(partial).with_context(|| format!("making {}", partial.display()))?;
    let encoder = zstd::stream::write::Encoder::new(file, LEVEL).context("zstd")?;
    let mut archive = tar::Builder::new(encoder);
    let text = serde_json::to_vec_pretty(&manifest).context("the manifest")?;
    append(&mut archive, MANIFEST, text.len() as u64, &text[..])?;
    for (name, bytes) in &trust {
        append(&mut archive, name, bytes.len() as u64, &bytes[..])?;
    }
    for (name, path) in &sources {
        let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let size_bytes = manifest.files[name].size_bytes;
        append(&mut archive, name, size_bytes, file.take(size_bytes))?;
    }
    let file = archive.into_inner().and_then(zstd::stream::write::Encoder::finish);
    file.and_then(|file| file.sync_all()).with_context(|| format!("writing {}", partial.display()))?;
    Ok(manifest)
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    size_bytes: u64,
    content: impl Read,
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, content).with_context(|| format!("writing {name}"))
}

/// All files under a folder, by their names below it; none where there is no folder.
fn files_in(folder: &Path, prefix: &str) -> Result<Vec<(String, PathBuf)>> {
    let reading = || format!("reading {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(reading),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().into_string().ok();
        let name = name.with_context(|| format!("{} is not UTF-8", entry.path().display()))?;
        let kind = entry.file_type().with_context(reading)?;
        if kind.is_dir() {
            files.extend(files_in(&entry.path(), &format!("{prefix}{name}/"))?);
        } else if kind.is_file() {
            files.push((format!("{prefix}{name}"), entry.path()));
        }
    }
    Ok(files)
}

fn facts_of(path: &Path) -> Result<Facts> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let (size_bytes, sha256) = copy_hashed(&mut file, &mut io::sink()).with_context(reading)?;
    Ok(Facts { size_bytes, sha256 })
}

fn copy_hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, Digest)> {
    let (mut hasher, mut size_bytes) = (Hasher::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((size_bytes, hasher.finish())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                to.write_all(&buffer[..count])?;
                size_bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the data folder `data`, which is empty or not there, and its database of the backup `from`.
///
/// # Errors
/// There is something in the folder or in the database, or the backup is damaged: nothing is left of it then.
pub async fn restore(from: &Path, data: &Path, database: &Database) -> Result<Manifest> {
    let is_empty = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("reading {}", data.display())),
    };
    ensure!(is_empty, "{} is not empty; restore into a folder of its own", data.display());
    let name = data.file_name().with_context(|| format!("{} is no name of a folder", data.display()))?;
    let partial = data.with_file_name(format!("{}.restoring", name.to_string_lossy()));
    ensure!(!partial.exists(), "{} is left from a restoring that broke off; remove it", partial.display());
    let restored = restore_partial(from, &partial, database).await;
    if restored.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_dir_all(&partial);
        return restored;
    }
    if data.exists() {
        fs::remove_dir(data).with_context(|| format!("replacing {}", data.display()))?;
    }
    fs::rename(&partial, data).with_context(|| format!("renaming to {}", data.display()))?;
    restored
}

async fn restore_partial(from: &Path, partial: &Path, database: &Database) -> Result<Manifest> {
    let manifest = unpack(from, partial)?;
    ensure!(
        manifest.postgres == database.is_shared(),
        "the backup is of {}; {}",
        if manifest.postgres { "PostgreSQL" } else { "SQLite" },
        if manifest.postgres { "give an empty database with --database" } else { "leave --database out" }
    );
    let copy = partial.join(store::backup::file_name(database));
    store::backup::restore(partial, database, &copy).await.context("making the database")?;
    if manifest.postgres {
        fs::remove_file(&copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    Ok(manifest)
}

/// Writes the files of a backup into `folder`, each as the manifest says.
fn unpack(from: &Path, folder: &Path) -> Result<Manifest> {
    let reading = || format!("reading {}", from.display());
    let file = File::open(from).with_context(reading)?;
    let decoder = zstd::stream::read::Decoder::new(file).with_context(reading)?;
    let mut archive = tar::Archive::new(decoder);
    let mut entries = archive.entries().with_context(reading)?;
    let mut first = entries.next().context("the backup is empty")?.with_context(reading)?;
    let is_manifest = first.path().is_ok_and(|path| path == Path::new(MANIFEST));
    ensure!(is_manifest, "{} is no backup: it does not begin with {MANIFEST}", from.display());
    let mut text = Vec::new();
    (&mut first).take(MANIFEST_BYTES_MAX).read_to_end(&mut text).with_context(reading)?;
    let manifest: Manifest = serde_json::from_slice(&text).context("the backup's manifest")?;
    ensure!(manifest.form == FORM, "the backup has form {}, this program reads {FORM}", manifest.form);
    let mut left = manifest.files.clone();
    for entry in entries {
        let mut entry = entry.with_context(reading)?;
        let name = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned));
        let name = name.context("a file of the backup has no name")?;
        let Some(facts) = left.remove(&name) else {
            bail!("{name} is in the backup twice or without being named")
        };
        let inside = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(inside, "{name} is no place in a data folder");
        let path = folder.join(&name);
        let writing = || format!("writing {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(folder)).with_context(writing)?;
        let mut file = File::create_new(&path).with_context(writing)?;
        let (size_bytes, sha256) = copy_hashed(&mut entry, &mut file).with_context(writing)?;
        file.sync_all().with_context(writing)?;
        ensure!(facts == Facts { size_bytes, sha256 }, "{name} is damaged: it is not what the manifest says");
    }
    match left.keys().next() {
        Some(name) => bail!("the backup is cut off: {name} is missing"),
        None => Ok(manifest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    /// A data folder with a database, a blob and a key.
    async fn world(database: &Database) -> (tempfile::TempDir, Digest) {
        let (folder, store) = testing::open(database).await;
        let (digest, _) = store.blobs.put(&b"a model"[..]).unwrap();
        fs::write(folder.path().join("blobs/half.partial"), b"half").unwrap();
        fs::create_dir_all(folder.path().join("keys/offline")).unwrap();
        fs::write(folder.path().join("keys/offline/root.pk8"), b"secret").unwrap();
        store.close().await;
        (folder, digest)
    }

    #[tokio::test]
    async fn a_backup_becomes_the_same_folder_and_holds_keys_only_where_asked() {
        let fresh = testing::databases().await;
        for (database, empty) in testing::databases().await.iter().zip(&fresh) {
            let (folder, digest) = world(database).await;
            let place = tempfile::tempdir().unwrap();
            let (with, without) = (place.path().join("with.tar.zst"), place.path().join("without.tar.zst"));
            assert!(write(folder.path(), database, true, &with).await.unwrap().keys);
            write(folder.path(), database, false, &without).await.unwrap();
            let again = write(folder.path(), database, false, &without).await.unwrap_err();
            assert!(again.to_string().contains("is there already"), "{again}");
            let made = place.path().join("made");
            fs::create_dir(&made).unwrap();
            restore(&with, &made, empty).await.unwrap();
            assert_eq!(fs::read(made.join("keys/offline/root.pk8")).unwrap(), b"secret");
            assert_eq!(fs::read(made.join("blobs").join(digest.to_string())).unwrap(), b"a model");
            assert!(!made.join("blobs/half.partial").exists());
            let full = restore(&without, &made, empty).await.unwrap_err();
            assert!(full.to_string().contains("is not empty"), "{full}");
            if !empty.is_shared() {
                let other = place.path().join("other");
                assert!(!restore(&without, &other, empty).await.unwrap().keys);
                assert!(!other.join("keys").exists());
            }
            let left: Vec<_> =
                fs::read_dir(place.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_damaged_backup_leaves_nothing() {
        let (folder, _) = world(&Database::Folder).await;
        let place = tempfile::tempdir().unwrap();
        let backup = place.path().join("b.tar.zst");
        write(folder.path(), &Database::Folder, false, &backup).await.unwrap();
        let whole = fs::read(&backup).unwrap();
        let made = place.path().join("made");
        for damaged in [&whole[..whole.len() / 2], &b"no backup"[..], &whole[..whole.len() - 10]] {
            fs::write(&backup, damaged).unwrap();
            restore(&backup, &made, &Database::Folder).await.unwrap_err();
            assert!(!made.exists());
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_that_leads_out_of_the_folder_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let backup = place.path().join("b.tar.zst");
        let facts = Facts { size_bytes: 4, sha256: Digest::of(b"evil") };
        let manifest = Manifest {
            form: FORM,
            program: String::new(),
            made_at: Timestamp(1),
            postgres: false,
            keys: false,
            files: BTreeMap::from([("blobs/../../evil".to_owned(), facts)]),
        };
        let mut archive = tar::Builder::new(
            zstd::stream::write::Encoder::new(File::create(&backup).unwrap(), LEVEL).unwrap(),
        );
        let text = serde_json::to_vec(&manifest).unwrap();
        append(&mut archive, MANIFEST, text.len() as u64, &text[..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.as_mut_bytes()[..16].copy_from_slice(b"blobs/../../evil");
        header.set_cksum();
        archive.append(&header, &b"evil"[..]).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        let error = unpack(&backup, &place.path().join("made")).unwrap_err().to_string();
        assert!(error.contains("no place in a data folder"), "{error}");
        assert!(!place.path().join("evil").exists());
    }
}
