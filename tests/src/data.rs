//! Test splits of the real data sets, read independently of the forge.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

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

/// Copies an IDX folder or a series pair to `target` with every label replaced by the next one: a data set
/// whose labels slipped by one, as happens when two files are joined with an offset.
pub fn with_slipped_labels(source: &Path, target: &Path) -> Result<PathBuf> {
    fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
    if source.is_dir() {
        for name in ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"] {
            fs::copy(source.join(name), target.join(name)).with_context(|| format!("copying {name}"))?;
        }
        for name in ["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"] {
            let mut bytes = fs::read(source.join(name)).with_context(|| format!("reading {name}"))?;
            let classes = bytes.iter().skip(8).max().map_or(1, |&label| label + 1);
            bytes.iter_mut().skip(8).for_each(|label| *label = (*label + 1) % classes);
            fs::write(target.join(name), bytes).with_context(|| format!("writing {name}"))?;
        }
        return Ok(target.to_path_buf());
    }
    let stem = source.file_name().and_then(|name| name.to_str()).context("a series set is FOLDER/NAME")?;
    let mut written = false;
    for ending in ["_TRAIN.ts", "_TEST.ts", "_TRAIN.tsv", "_TEST.tsv"] {
        let from = source.with_file_name(format!("{stem}{ending}"));
        if !from.is_file() {
            continue;
        }
        let text = fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
        fs::write(target.join(format!("{stem}{ending}")), slip_text(&text, ending.ends_with(".ts")))?;
        written = true;
    }
    if written { Ok(target.join(stem)) } else { bail!("no series set at {}", source.display()) }
}

fn slip_text(text: &str, ts: bool) -> String {
    let label_of = |line: &str| -> Option<String> {
        let comment = line.starts_with('@') || line.starts_with('#') || line.trim().is_empty();
        let label = if ts {
            line.rsplit_once(':').map(|(_, label)| label)
        } else {
            line.split_once('\t').map(|(label, _)| label)
        };
        label.filter(|_| !comment).map(|label| label.trim().to_owned())
    };
    let mut labels: Vec<String> = text.lines().filter_map(label_of).collect();
    labels.sort();
    labels.dedup();
    let next = |label: &str| {
        let at = labels.iter().position(|known| known == label).unwrap_or(0);
        labels[(at + 1) % labels.len()].clone()
    };
    let slipped = text.lines().map(|line| match (label_of(line), ts) {
        (None, _) => line.to_owned(),
        (Some(label), true) => {
            format!("{}:{}", line.rsplit_once(':').map_or("", |(head, _)| head), next(&label))
        }
        (Some(label), false) => {
            format!("{}\t{}", next(&label), line.split_once('\t').map_or("", |(_, rest)| rest))
        }
    });
    slipped.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slipped_labels_are_all_wrong_and_the_same_in_number() {
        let text = "@data\n1,2,3:a\n4,5,6:b\n";
        assert_eq!(slip_text(text, true), "@data\n1,2,3:b\n4,5,6:a\n");
        assert_eq!(slip_text("1\t0.5\n2\t0.7\n", false), "2\t0.5\n1\t0.7\n");
    }
}
