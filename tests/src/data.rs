//! Test splits of the real data sets, read independently of the forge.

mod slipped;

pub use slipped::with_slipped_labels;

use anyhow::{Context, Result, bail};
use std::{fs, path::Path};

/// Samples with their right classes.
#[derive(Clone, Debug)]
pub struct TestSplit {
    /// Shape of one sample: `[C, H, W]` or `[C, L]`.
    pub shape: Vec<usize>,
    /// The model's input, sample after sample.
    pub inputs: Vec<Vec<f32>>,
    /// Class names, one for each sample.
    pub labels: Vec<String>,
}

impl TestSplit {
    /// The test images of an IDX folder, values 0 to 1.
    pub fn idx(folder: &Path) -> Result<Self> {
        let images = read_idx(folder, "t10k-images-idx3-ubyte", 3)?;
        let labels = read_idx(folder, "t10k-labels-idx1-ubyte", 1)?;
        let &[count, height, width] = images.sizes.as_slice() else { bail!("images have three dimensions") };
        if labels.sizes != [count] {
            bail!("{} images and {:?} labels in {}", count, labels.sizes, folder.display());
        }
        let size = height * width;
        let inputs = images
            .bytes
            .chunks_exact(size)
            .map(|image| image.iter().map(|&b| f32::from(b) / 255.0).collect());
        Ok(Self {
            shape: vec![1, height, width],
            inputs: inputs.collect(),
            labels: labels.bytes.iter().map(u8::to_string).collect(),
        })
    }

    /// The test series of a `.ts` or `.tsv` pair; `stem` is the path without `_TEST` and ending.
    pub fn series(stem: &Path) -> Result<Self> {
        let with = |ending: &str| {
            let mut name = stem.file_name().unwrap_or_default().to_os_string();
            name.push(ending);
            stem.with_file_name(name)
        };
        let (ts, tsv) = (with("_TEST.ts"), with("_TEST.tsv"));
        let (inputs, labels): (Vec<Vec<Vec<f32>>>, Vec<String>) = if ts.is_file() {
            let text = fs::read_to_string(&ts).with_context(|| format!("reading {}", ts.display()))?;
            let lines = text.lines().map(str::trim);
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('@') && !line.starts_with('#'))
                .map(|line| {
                    let (channels, label) = line.rsplit_once(':').context("a line without a label")?;
                    let channels =
                        channels.split(':').map(|channel| numbers(channel, ',')).collect::<Result<_>>()?;
                    Ok((channels, label.to_owned()))
                })
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .unzip()
        } else {
            let text = fs::read_to_string(&tsv).with_context(|| format!("reading {}", tsv.display()))?;
            text.lines()
                .map(|line| {
                    let (label, values) = line.split_once('\t').context("a line without a tab")?;
                    Ok((vec![numbers(values, '\t')?], label.to_owned()))
                })
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .unzip()
        };
        let first = inputs.first().with_context(|| format!("{} is empty", stem.display()))?;
        let shape = vec![first.len(), first.first().map_or(0, Vec::len)];
        Ok(Self { shape, inputs: inputs.into_iter().map(|channels| channels.concat()).collect(), labels })
    }

    /// The first `count` samples, starting over where there are fewer.
    pub fn cycled(&self, count: usize) -> Self {
        let inputs = self.inputs.iter().cycle().take(count).cloned().collect();
        let labels = self.labels.iter().cycle().take(count).cloned().collect();
        Self { shape: self.shape.clone(), inputs, labels }
    }

    /// The shape of a batch of `count` samples.
    pub fn batch_shape(&self, count: usize) -> Vec<usize> {
        std::iter::once(count).chain(self.shape.iter().copied()).collect()
    }
}

fn numbers(text: &str, separator: char) -> Result<Vec<f32>> {
    text.split(separator)
        .map(|value| value.trim().parse().with_context(|| format!("{value:?} is no number")))
        .collect()
}

struct Idx {
    sizes: Vec<usize>,
    bytes: Vec<u8>,
}

fn read_idx(folder: &Path, name: &str, rank: usize) -> Result<Idx> {
    let path = folder.join(name);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let word = |at: usize| -> Result<usize> {
        let word = bytes.get(at..at + 4).with_context(|| format!("{} is cut short", path.display()))?;
        Ok(u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize)
    };
    if word(0)? != 0x0800 + rank {
        bail!("{} is no IDX file of {rank} dimensions", path.display());
    }
    let sizes = (0..rank).map(|axis| word(4 + 4 * axis)).collect::<Result<Vec<_>>>()?;
    let start = 4 + 4 * rank;
    if bytes.len() != start + sizes.iter().product::<usize>() {
        bail!("{} has another length than it says", path.display());
    }
    Ok(Idx { sizes, bytes: bytes[start..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_series_formats_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("A_TEST.ts"), "#c\n@data\n1,2:7,8:up\n3,4:9,0:down\n").unwrap();
        let a = TestSplit::series(&folder.path().join("A")).unwrap();
        assert_eq!(
            (a.shape, a.inputs[1].clone(), a.labels[1].as_str()),
            (vec![2, 2], vec![3., 4., 9., 0.], "down")
        );
        fs::write(folder.path().join("B_TEST.tsv"), "1\t0.5\t1\n2\t0.7\t3\n").unwrap();
        let b = TestSplit::series(&folder.path().join("B")).unwrap();
        assert_eq!(
            (b.batch_shape(1), b.inputs, b.labels),
            (vec![1, 1, 2], vec![vec![0.5, 1.], vec![0.7, 3.]], vec!["1".to_owned(), "2".to_owned()])
        );
    }

    #[test]
    fn an_idx_file_of_another_length_than_it_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let images = [&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2][..], &[0, 51, 102, 255]].concat();
        fs::write(folder.path().join("t10k-images-idx3-ubyte"), &images).unwrap();
        fs::write(folder.path().join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 9]).unwrap();
        let split = TestSplit::idx(folder.path()).unwrap();
        assert_eq!((split.shape, split.labels), (vec![1, 2, 2], vec!["9".to_owned()]));
        assert_eq!(split.inputs, [[0.0, 0.2, 0.4, 1.0]]);
        fs::write(folder.path().join("t10k-images-idx3-ubyte"), &images[..18]).unwrap();
        let error = TestSplit::idx(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another length"), "{error}");
    }
}
