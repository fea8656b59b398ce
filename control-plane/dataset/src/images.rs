//! Folders of images, one folder a class: `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png`, of which every
//! fifth is then for testing. PNG and JPEG.

use super::{
    Classes, Error, Intake, Place, Raw, Row, SAMPLES_MAX, STORED_VALUES_MAX, Split,
    file::{read_file, read_whole},
};
use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits};
use shared::{Digest, digest::Hasher, job::DataFormat, limits, manifest::Task};
use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

/// Longest side of an image.
const SIDE_MAX: u32 = 4096;
/// Memory that decoding one image may take.
const DECODE_BYTES_MAX: u64 = 256 << 20;
/// Of so many images of a class, one is for testing where there is no folder for it.
const TEST_OF: usize = 5;
/// Endings of files that are read; others are passed over.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Folders of a set that says itself what is for training.
const PARTS: [&str; 2] = ["train", "test"];

/// One image, of which the file was read but not decoded.
struct Picture {
    path: PathBuf,
    class: usize,
    digest: Digest,
    /// Width and height.
    size: (u32, u32),
    colour: ColorType,
}

/// Whether `path` is a folder of this kind.
pub(super) fn is(path: &Path) -> bool {
    let [train, test] = PARTS.map(|part| path.join(part));
    let classes = if train.is_dir() && test.is_dir() { folders(&train) } else { folders(path) };
    classes.is_ok_and(|classes| classes.iter().any(|class| files(class).is_ok_and(|files| !files.is_empty())))
}

/// Reads a set: every file once for what it is and its digest, which the split is by, and once for its pixels.
pub(super) fn read(
    path: &Path,
    wanted: Classes,
    hasher: &mut Hasher,
    intake: &mut Intake<'_>,
) -> Result<Raw, Error> {
    let [train, test] = PARTS.map(|part| path.join(part));
    let (labels, train, test) = if train.is_dir() && test.is_dir() {
        let labels = match wanted {
            Classes::OfTraining => classes(&[&train], wanted)?,
            Classes::Any => classes(&[&train, &test], wanted)?,
        };
        let read = |part: &Path, hasher: &mut Hasher| pictures(part, &labels, hasher);
        let (training, testing) = (read(&train, hasher)?, read(&test, hasher)?);
        (labels, training, testing)
    } else {
        let labels = classes(&[path], wanted)?;
        let (training, testing) = parted(pictures(path, &labels, hasher)?);
        (labels, training, testing)
    };
    let all = || train.iter().chain(&test);
    let Some(first) = all().next() else {
        return Err(Error::bad(path, Place::File, "no image: expected CLASS/*.png or CLASS/*.jpg"));
    };
    let (width, height) = first.size;
    if let Some(other) = all().find(|picture| picture.size != first.size) {
        let message = format!(
            "{} x {} pixels, {} has {width} x {height}: bring all images to one size",
            other.size.0,
            other.size.1,
            first.path.display()
        );
        return Err(Error::bad(&other.path, Place::File, message));
    }
    let channels = if all().any(|picture| picture.colour.has_color()) { 3 } else { 1 };
    let shape = vec![channels, height as usize, width as usize];
    let each: usize = shape.iter().product();
    let count = train.len() + test.len();
    if (each as u64).saturating_mul(count as u64) > STORED_VALUES_MAX || each > limits::TENSOR_ELEMENTS_MAX {
        let message = format!("{count} images of {each} values: at most {STORED_VALUES_MAX} values are read");
        return Err(Error::bad(path, Place::File, message));
    }
    let splits = [split(&train, channels, false, intake)?, split(&test, channels, true, intake)?];
    let [train, test] = splits;
    let untrained = (0i64..).zip(&labels).find(|(class, _)| !train.labels.contains(class));
    if let (Classes::OfTraining, Some((class, label))) = (wanted, untrained) {
        let message = format!("class {label:?} (number {class}) has no image for training");
        return Err(Error::bad(path, Place::File, message));
    }
    let kind = (DataFormat::ImageFolder, Task::ImageClassification);
    Ok(Raw::numeric(kind, shape, labels, path.to_owned(), [train, test]))
}

/// Names of the folders in `parts`, of which the first one is named in errors.
fn classes(parts: &[&Path], wanted: Classes) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for part in parts {
        names.extend(folders(part)?.iter().map(|folder| name(folder)));
    }
    names.sort();
    names.dedup();
    let path = parts.first().copied().unwrap_or(Path::new(""));
    match names.as_slice() {
        [] => Err(Error::bad(path, Place::File, "no folder: expected one for each class")),
        [only] if wanted == Classes::OfTraining => Err(Error::one_class(path, only)),
        many if many.len() > limits::LABELS_MAX => {
            let message = format!("{} classes, at most {} are taken", many.len(), limits::LABELS_MAX);
            Err(Error::bad(path, Place::File, message))
        }
        _ => Ok(names),
    }
}

/// The images of all class folders, by class and name.
fn pictures(part: &Path, labels: &[String], hasher: &mut Hasher) -> Result<Vec<Picture>, Error> {
    let mut found = Vec::new();
    for folder in folders(part)? {
        let label = name(&folder);
        let Some(class) = labels.iter().position(|known| *known == label) else {
            let message = format!("class {label:?} does not occur in the training split");
            return Err(Error::bad(&folder, Place::File, message));
        };
        for path in files(&folder)? {
            if found.len() >= SAMPLES_MAX {
                let message = format!("more than {SAMPLES_MAX} images, the most that is read");
                return Err(Error::bad(part, Place::File, message));
            }
            hasher.update(label.as_bytes());
            hasher.update(b"/");
            let bytes = read_file(&path, hasher)?;
            let (size, colour) = measured(&bytes).map_err(|error| Error::bad(&path, Place::File, error))?;
            found.push(Picture { digest: Digest::of(&bytes), path, class, size, colour });
        }
    }
    Ok(found)
}

/// Width, height and colour by a file's header.
fn measured(bytes: &[u8]) -> Result<((u32, u32), ColorType), String> {
    let decoder = reader(bytes)?.into_decoder().map_err(|error| unreadable(&error))?;
    Ok((decoder.dimensions(), decoder.color_type()))
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    reader(bytes)?.decode().map_err(|error| unreadable(&error))
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let mut most = Limits::default();
    most.max_image_width = Some(SIDE_MAX);
    most.max_image_height = Some(SIDE_MAX);
    most.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(most);
    Ok(reader)
}

fn unreadable(error: &image::ImageError) -> String {
    format!("no image that can be read: {error}")
}

/// For training and for testing: by content, so that the same image under two names lies on one side only.
fn parted(pictures: Vec<Picture>) -> (Vec<Picture>, Vec<Picture>) {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let mut rest = pictures;
    while let Some(class) = rest.first().map(|picture| picture.class) {
        let (mut of_class, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|picture| picture.class == class);
        rest = others;
        of_class.sort_by(|a, b| (a.digest, &a.path).cmp(&(b.digest, &b.path)));
        let mut count = of_class.len() / TEST_OF;
        while count > 0 && of_class.get(count).is_some_and(|next| next.digest == of_class[count - 1].digest) {
            count += 1;
        }
        train.extend(of_class.split_off(count));
        test.append(&mut of_class);
    }
    (train, test)
}

/// Decodes images one by one.
fn split(
    pictures: &[Picture],
    channels: usize,
    testing: bool,
    intake: &mut Intake<'_>,
) -> Result<Split, Error> {
    let mut planes: Vec<u8> = Vec::new();
    for picture in pictures {
        let bad = |message: String| Error::bad(&picture.path, Place::File, message);
        let bytes = read_whole(&picture.path)?;
        if Digest::of(&bytes) != picture.digest {
            return Err(bad("the file changed while the set was read: read it again".to_owned()));
        }
        let image = decode(&bytes).map_err(bad)?;
        if (image.width(), image.height()) != picture.size {
            return Err(bad("its header names another size than its pixels have".to_owned()));
        }
        planes.clear();
        if channels == 1 {
            planes.extend_from_slice(&image.to_luma8());
        } else {
            let pixels = image.to_rgb8();
            for channel in 0..channels {
                planes.extend(pixels.iter().skip(channel).step_by(channels));
            }
        }
        intake.take(Row::Bytes(&planes), channels, testing)?;
    }
    let labels = pictures.iter().map(|picture| picture.class as i64).collect();
    Ok(Split { labels, ..Split::default() })
}

/// Folders in `path`, by name; hidden ones are passed over.
fn folders(path: &Path) -> Result<Vec<PathBuf>, Error> {
    entries(path, Path::is_dir)
}

/// Images in `path`, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_image = |entry: &Path| {
        let ending = entry.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && entry.is_file()
    };
    entries(path, is_image)
}

fn entries(path: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?.path();
        if !name(&entry).starts_with('.') && wanted(&entry) {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn grey(path: &Path, value: u8, size: (u32, u32)) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(size.0, size.1, Luma([value])).save(path).unwrap();
    }

    fn refusal(path: &Path) -> String {
        open(path, None).unwrap_err().to_string()
    }

    #[test]
    fn reads_folders_of_training_and_testing_and_keeps_grey_images_in_one_channel() {
        let folder = tempfile::tempdir().unwrap();
        for (at, name) in ["train/cat/a.png", "train/cat/b.PNG", "train/dog/a.jpg", "test/dog/x.png"]
            .into_iter()
            .enumerate()
        {
            grey(&folder.path().join(name), at as u8 * 51, (3, 2));
        }
        fs::write(folder.path().join("train/cat/notes.txt"), "no image").unwrap();
        let set = open(folder.path(), None).unwrap();
        assert_eq!((set.schema.format, &set.schema.shape[..]), (DataFormat::ImageFolder, &[1, 2, 3][..]));
        assert_eq!(set.schema.labels, ["cat", "dog"]);
        assert_eq!((&set.train.labels[..], &set.test.labels[..]), (&[0, 0, 1][..], &[1][..]));
        assert!((set.train.samples[6] - 0.2).abs() < 1e-6);
        fs::rename(folder.path().join("test/dog"), folder.path().join("test/cow")).unwrap();
        assert!(refusal(folder.path()).ends_with("class \"cow\" does not occur in the training split"));
    }

    #[test]
    fn one_colour_image_makes_three_channels_planes_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["train", "test"] {
            grey(&folder.path().join(part).join("a/0.png"), 0, (2, 1));
            fs::create_dir_all(folder.path().join(part).join("b")).unwrap();
            let image = RgbImage::from_fn(2, 1, |x, _| Rgb([255, if x == 0 { 51 } else { 102 }, 0]));
            image.save(folder.path().join(part).join("b/0.png")).unwrap();
        }
        let set = open(folder.path(), Some(DataFormat::ImageFolder)).unwrap();
        assert_eq!(set.schema.shape, [3, 1, 2]);
        assert_eq!(set.train.samples[6..], [1.0, 1.0, 0.2, 0.4, 0.0, 0.0]);
    }

    #[test]
    fn without_folders_for_it_a_fifth_of_each_class_is_for_testing_and_copies_stay_on_one_side() {
        let folder = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            for at in 0..20u8 {
                // Every image twice.
                let value = at / 2 * 2 + u8::from(class == "b");
                grey(&folder.path().join(class).join(format!("{at}.png")), value, (2, 2));
            }
        }
        let set = open(folder.path(), None).unwrap();
        assert_eq!(set.train.len() + set.test.len(), 40);
        assert!((4..=5).contains(&(set.test.len() / 2)), "{}", set.test.len());
        let first =
            |split: &Split| -> Vec<u32> { split.samples.chunks(4).map(|image| image[0].to_bits()).collect() };
        let (train, test) = (first(&set.train), first(&set.test));
        assert!(test.iter().all(|image| !train.contains(image)), "an image is on both sides");
        assert_eq!(open(folder.path(), None).unwrap(), set);
    }

    #[test]
    fn mixed_sizes_damaged_files_and_a_single_class_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for at in 0..6u8 {
            for class in ["a", "b"] {
                grey(&folder.path().join(class).join(format!("{at}.png")), at, (4, 4));
            }
        }
        grey(&folder.path().join("b/odd.png"), 9, (5, 4));
        let message = refusal(folder.path());
        assert!(
            message.contains("odd.png: 5 x 4 pixels, ") && message.ends_with("bring all images to one size")
        );
        fs::write(folder.path().join("b/odd.png"), b"\x89PNG\r\n\x1a\n and nothing more").unwrap();
        assert!(refusal(folder.path()).contains("odd.png: no image that can be read"));
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        assert!(refusal(folder.path()).contains("all training samples have the label \"a\""));
    }
}
