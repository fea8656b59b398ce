//! The IDX format of MNIST: a magic number that names type and rank, big-endian sizes, then bytes; plain or gzip.

use super::{Classes, Error, Intake, Place, Raw, Row, SAMPLES_MAX, STORED_VALUES_MAX, Split, file::Hashed};
use shared::{digest::Hasher, job::DataFormat, limits, manifest::Task};
use std::{
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// Type code of unsigned bytes in the third byte of the magic number.
const TYPE_U8: u8 = 8;
/// What is read from the disk at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Reads images and labels for training, then for testing.
pub(super) fn read(
    paths: &[PathBuf; 4],
    wanted: Classes,
    hasher: &mut Hasher,
    intake: &mut Intake<'_>,
) -> Result<Raw, Error> {
    let [train_images, train_labels, test_images, test_labels] = paths;
    let (shape, train) = split(train_images, train_labels, false, hasher, intake)?;
    let (test_shape, test) = split(test_images, test_labels, true, hasher, intake)?;
    if shape != test_shape {
        let message = format!("images have the shape {test_shape:?}, those for training have {shape:?}");
        return Err(Error::bad(test_images, Place::File, message));
    }
    let kind = (DataFormat::Idx, Task::ImageClassification);
    let names = |classes: i64| (0..classes).map(|class| class.to_string()).collect();
    if wanted == Classes::Any {
        let classes = train.labels.iter().chain(&test.labels).max().map_or(0, |label| label + 1);
        return Ok(Raw::numeric(kind, shape, names(classes), train_labels.clone(), [train, test]));
    }
    let classes = train.labels.iter().max().map_or(0, |label| label + 1);
    let mut seen = vec![false; usize::try_from(classes).unwrap_or(0)];
    for label in &train.labels {
        seen[usize::try_from(*label).unwrap_or(0)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    if distinct < 2 {
        return Err(Error::one_class(train_labels, &(classes - 1).to_string()));
    }
    if let Some(missing) = seen.iter().position(|seen| !seen) {
        let message = format!(
            "labels go up to {}, but no sample has the label {missing}: labels must be 0, 1, 2 … without a gap",
            classes - 1
        );
        return Err(Error::bad(train_labels, Place::File, message));
    }
    if let Some(index) = test.labels.iter().position(|label| *label >= classes) {
        let message = format!(
            "label {} does not occur in the training split (0 to {})",
            test.labels[index],
            classes - 1
        );
        return Err(Error::bad(test_labels, Place::Byte(8 + index), message));
    }
    Ok(Raw::numeric(kind, shape, names(classes), train_labels.clone(), [train, test]))
}

/// Reads images and their labels; the images go into the intake.
fn split(
    images: &Path,
    labels: &Path,
    testing: bool,
    hasher: &mut Hasher,
    intake: &mut Intake<'_>,
) -> Result<(Vec<usize>, Split), Error> {
    let mut file = Content::open(images, hasher, &[3, 4])?;
    // Rank 3 is [N, H, W]; rank 4 is [N, H, W, C], which becomes channels first.
    let shape = match *file.sizes {
        [_, height, width] => vec![1, height, width],
        [_, height, width, channels] => vec![channels, height, width],
        _ => return Err(Error::bad(images, Place::Byte(3), "an image file has rank 3 or 4")),
    };
    let (count, channels) = (file.sizes[0], shape[0]);
    let each = shape.iter().fold(1usize, |product, axis| product.saturating_mul(*axis));
    if each > limits::TENSOR_ELEMENTS_MAX {
        let message = format!("a sample has {each} values, allowed are 1 to {}", limits::TENSOR_ELEMENTS_MAX);
        return Err(Error::bad(images, Place::Byte(4), message));
    }
    let (mut image, mut turned) = (vec![0; each], vec![0; each]);
    for _ in 0..count {
        file.read(&mut image)?;
        if channels > 1 {
            channels_first(&image, channels, &mut turned);
        } else {
            turned.copy_from_slice(&image);
        }
        intake.take(Row::Bytes(&turned), channels, testing)?;
    }
    file.finish()?;
    let mut file = Content::open(labels, hasher, &[1])?;
    if file.sizes[0] != count {
        let message = format!("{} labels, but {} has {count} images", file.sizes[0], images.display());
        return Err(Error::bad(labels, Place::Byte(4), message));
    }
    let mut classes = vec![0; count];
    file.read(&mut classes)?;
    file.finish()?;
    let labels = classes.iter().map(|label| i64::from(*label)).collect();
    Ok((shape, Split { labels, ..Split::default() }))
}

fn channels_first(image: &[u8], channels: usize, out: &mut [u8]) {
    let plane = out.len() / channels.max(1);
    for (position, pixel) in image.chunks_exact(channels).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            out[channel * plane + position] = *value;
        }
    }
}

/// A file behind its header, unpacked as it is read, and only as far as that header announces.
struct Content<'a> {
    path: &'a Path,
    source: Source<'a>,
    /// Of all axes.
    sizes: Vec<usize>,
    /// Bytes so far, after decompression.
    at: usize,
    /// Bytes in all, by the header.
    end: usize,
}

enum Source<'a> {
    Plain(BufReader<Hashed<'a>>),
    Packed(flate2::bufread::MultiGzDecoder<BufReader<Hashed<'a>>>),
}

impl<'a> Content<'a> {
    fn open(path: &'a Path, hasher: &'a mut Hasher, ranks: &[u8]) -> Result<Self, Error> {
        let file = BufReader::with_capacity(BUFFER_BYTES, Hashed::open(path, hasher)?);
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let source = if packed {
            Source::Packed(flate2::bufread::MultiGzDecoder::new(file))
        } else {
            Source::Plain(file)
        };
        let mut content = Self { path, source, sizes: Vec::new(), at: 0, end: 0 };
        let mut magic = [0; 4];
        let found = content.fill(&mut magic)?;
        let rank = rank(path, &magic[..found], ranks)?;
        let mut fields = vec![0; 4 * rank];
        let found = content.fill(&mut fields)?;
        if found < fields.len() {
            let message = format!("the header ends here, expected {} bytes", 4 + fields.len());
            return Err(Error::bad(path, Place::Byte(4 + found), message));
        }
        let (sizes, total) = announced(path, &fields)?;
        content.end = content.at + total;
        Ok(Self { sizes, ..content })
    }

    /// Reads until `into` is full or the file ends; how much that is.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < into.len() {
            let read = match &mut self.source {
                Source::Plain(file) => file.read(&mut into[done..]),
                Source::Packed(file) => file.read(&mut into[done..]),
            };
            match read {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(self.source, Source::Packed(_)) => {
                    let message = format!("the gzip data is damaged: {error}");
                    return Err(Error::bad(self.path, Place::Byte(self.at + done), message));
                }
                Err(source) => return Err(Error::Io { path: self.path.to_owned(), source }),
            }
        }
        self.at += done;
        Ok(done)
    }

    /// The next bytes of the values.
    fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        if self.fill(into)? < into.len() {
            let message = format!("the file ends here, its header announces {} bytes", self.end);
            return Err(Error::bad(self.path, Place::Byte(self.at), message));
        }
        Ok(())
    }

    /// Nothing may follow what was announced.
    fn finish(mut self) -> Result<(), Error> {
        if self.fill(&mut [0])? > 0 {
            let message = format!("the file goes on, its header announces {} bytes", self.end);
            return Err(Error::bad(self.path, Place::Byte(self.end), message));
        }
        let file = match self.source {
            Source::Plain(file) => file,
            Source::Packed(file) => file.into_inner(),
        };
        file.into_inner().finish()
    }
}

/// The rank that a magic number names, one of `ranks`.
fn rank(path: &Path, magic: &[u8], ranks: &[u8]) -> Result<usize, Error> {
    let Some(&[zero_a, zero_b, kind, rank]) = magic.first_chunk::<4>() else {
        let message =
            format!("the file has {} bytes, an IDX file begins with a magic number of 4", magic.len());
        return Err(Error::bad(path, Place::Byte(0), message));
    };
    if [zero_a, zero_b, kind] != [0, 0, TYPE_U8] || !ranks.contains(&rank) {
        let wanted: Vec<String> = ranks.iter().map(|rank| format!("0000080{rank}")).collect();
        let message = format!(
            "magic number {:02x}{:02x}{:02x}{:02x}, expected {}",
            zero_a,
            zero_b,
            kind,
            rank,
            wanted.join(" or ")
        );
        return Err(Error::bad(path, Place::Byte(0), message));
    }
    Ok(usize::from(rank))
}

/// What the fields of a header say: sizes of all axes, and the number of values behind it.
fn announced(path: &Path, fields: &[u8]) -> Result<(Vec<usize>, usize), Error> {
    let mut sizes = Vec::new();
    for (axis, field) in fields.as_chunks::<4>().0.iter().enumerate() {
        let size = u32::from_be_bytes(*field) as usize;
        let limit = if axis == 0 { SAMPLES_MAX } else { limits::TENSOR_ELEMENTS_MAX };
        if size == 0 || size > limit {
            let message = format!("axis {axis} has the size {size}, allowed are 1 to {limit}");
            return Err(Error::bad(path, Place::Byte(4 + 4 * axis), message));
        }
        sizes.push(size);
    }
    let total = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let Some(total) = total.filter(|total| *total as u64 <= STORED_VALUES_MAX) else {
        let message =
            format!("the sizes {sizes:?} give more than {STORED_VALUES_MAX} values, the most that is read");
        return Err(Error::bad(path, Place::Byte(4), message));
    };
    Ok((sizes, total))
}
