//! The IDX format of MNIST: a magic number that names type and rank, big-endian sizes, then bytes; plain or gzip.

use super::{Classes, Error, Place, Raw, SAMPLES_MAX, Split, VALUES_MAX, read_file};
use shared::{digest::Hasher, job::DataFormat, limits, manifest::Task};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Type code of unsigned bytes in the third byte of the magic number.
const TYPE_U8: u8 = 8;
/// The magic number and the sizes of four axes.
const HEADER_BYTES_MAX: u64 = 20;

/// Reads images and labels for training, then for testing.
pub(super) fn read(paths: &[PathBuf; 4], wanted: Classes, hasher: &mut Hasher) -> Result<Raw, Error> {
    let [train_images, train_labels, test_images, test_labels] = paths;
    let (shape, train) = split(train_images, train_labels, hasher)?;
    let (test_shape, test) = split(test_images, test_labels, hasher)?;
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

fn split(images: &Path, labels: &Path, hasher: &mut Hasher) -> Result<(Vec<usize>, Split), Error> {
    let (sizes, pixels) = values(images, &read_file(images, hasher)?, &[3, 4])?;
    let (label_sizes, classes) = values(labels, &read_file(labels, hasher)?, &[1])?;
    if label_sizes[0] != sizes[0] {
        let message = format!("{} labels, but {} has {} images", label_sizes[0], images.display(), sizes[0]);
        return Err(Error::bad(labels, Place::Byte(4), message));
    }
    // Rank 3 is [N, H, W]; rank 4 is [N, H, W, C], which becomes channels first.
    let shape = match *sizes {
        [_, height, width] => vec![1, height, width],
        [_, height, width, channels] => vec![channels, height, width],
        _ => return Err(Error::bad(images, Place::Byte(3), "an image file has rank 3 or 4")),
    };
    let samples = if shape[0] == 1 {
        pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect()
    } else {
        channels_first(&pixels, &shape)
    };
    let labels = classes.iter().map(|label| i64::from(*label)).collect();
    Ok((shape, Split { samples, labels, ..Split::default() }))
}

fn channels_first(pixels: &[u8], shape: &[usize]) -> Vec<f32> {
    let (channels, plane) = (shape[0], shape[1] * shape[2]);
    let mut samples = vec![0.0; pixels.len()];
    for (image, out) in pixels.chunks_exact(channels * plane).zip(samples.chunks_exact_mut(channels * plane))
    {
        for (position, pixel) in image.chunks_exact(channels).enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                out[channel * plane + position] = f32::from(*value) / 255.0;
            }
        }
    }
    samples
}

/// Sizes of all axes, and the values. A packed file is unpacked only as far as its own header announces.
fn values(path: &Path, raw: &[u8], ranks: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let mut source: Box<dyn Read + '_> =
        if packed { Box::new(flate2::read::MultiGzDecoder::new(raw)) } else { Box::new(raw) };
    let mut bytes = Vec::new();
    let mut read = |limit: u64, bytes: &mut Vec<u8>| {
        let result = source.by_ref().take(limit).read_to_end(bytes);
        result.map_err(|error| {
            Error::bad(path, Place::Byte(bytes.len()), format!("the gzip data is damaged: {error}"))
        })
    };
    read(HEADER_BYTES_MAX, &mut bytes)?;
    let (sizes, header, total) = announced(path, &bytes, ranks)?;
    let end = header + total;
    // One byte more, to see whether the file goes on.
    read((end + 1).saturating_sub(bytes.len()) as u64, &mut bytes)?;
    if bytes.len() < end {
        let message = format!("the file ends here, its header announces {end} bytes");
        return Err(Error::bad(path, Place::Byte(bytes.len()), message));
    }
    if bytes.len() > end {
        let message = format!("the file goes on, its header announces {end} bytes");
        return Err(Error::bad(path, Place::Byte(end), message));
    }
    bytes.drain(..header);
    Ok((sizes, bytes))
}

/// What a header says: sizes of all axes, its own length, and the number of values behind it.
fn announced(path: &Path, bytes: &[u8], ranks: &[u8]) -> Result<(Vec<usize>, usize, usize), Error> {
    let Some(&[zero_a, zero_b, kind, rank]) = bytes.first_chunk::<4>() else {
        let message =
            format!("the file has {} bytes, an IDX file begins with a magic number of 4", bytes.len());
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
    let header = 4 + 4 * usize::from(rank);
    let Some(fields) = bytes.get(4..header) else {
        let message = format!("the header ends here, expected {header} bytes");
        return Err(Error::bad(path, Place::Byte(bytes.len()), message));
    };
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
    let Some(total) = total.filter(|total| *total <= VALUES_MAX) else {
        let message =
            format!("the sizes {sizes:?} give more than {VALUES_MAX} values, the most that is read");
        return Err(Error::bad(path, Place::Byte(4), message));
    };
    Ok((sizes, header, total))
}
