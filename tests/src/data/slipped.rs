//! A copy of a data set whose labels are all wrong.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

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
