//! The targets, as `fuzz/Cargo.toml` names them.

use crate::cache::root;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{fs, path::PathBuf};

/// One fuzz target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// Features of the package that it needs.
    #[serde(default, rename = "required-features")]
    pub(crate) features: Vec<String>,
}

/// The package of the targets.
pub(crate) fn package() -> PathBuf {
    root().join("fuzz")
}

/// All targets, in the order of the manifest.
fn all() -> Result<Vec<Target>> {
    #[derive(Deserialize)]
    struct Manifest {
        bin: Vec<Target>,
    }
    let path = package().join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok(manifest.bin)
}

/// The targets named, or all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Target>> {
    let all = all()?;
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|target| target.name != **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {unknown:?}; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}

/// Targets that are built together: those that need nothing first, the others in the order of the manifest.
pub(crate) fn by_features(targets: Vec<Target>) -> Vec<Vec<Target>> {
    let (plain, others): (Vec<_>, Vec<_>) =
        targets.into_iter().partition(|target| target.features.is_empty());
    let mut groups: Vec<Vec<Target>> = Vec::new();
    for target in plain.into_iter().chain(others) {
        match groups.iter_mut().find(|group| group[0].features == target.features) {
            Some(group) => group.push(target),
            None => groups.push(vec![target]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_source_and_seeds_and_every_source_is_a_target() {
        let targets = all().unwrap();
        for target in &targets {
            let source = package().join("fuzz_targets").join(format!("{}.rs", target.name));
            assert!(source.is_file(), "{} is missing", source.display());
            let seeds = package().join("seeds").join(&target.name);
            let count = fs::read_dir(&seeds).map_or(0, Iterator::count);
            assert!(count > 0, "{} has no seed", seeds.display());
        }
        assert_eq!(fs::read_dir(package().join("fuzz_targets")).unwrap().count(), targets.len());
    }

    #[test]
    fn what_is_fuzzed_has_the_versions_that_are_shipped() {
        #[derive(Deserialize)]
        struct Lock {
            package: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            version: String,
        }
        let lock =
            |path: PathBuf| toml::from_str::<Lock>(&fs::read_to_string(path).unwrap()).unwrap().package;
        let shipped = lock(root().join("Cargo.lock"));
        for fuzzed in lock(package().join("Cargo.lock")) {
            let mut versions = shipped.iter().filter(|package| package.name == fuzzed.name).peekable();
            let same = versions.peek().is_none() || versions.any(|package| package.version == fuzzed.version);
            assert!(same, "fuzz/Cargo.lock has {} {}, Cargo.lock another", fuzzed.name, fuzzed.version);
        }
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_known_ones() {
        let error = chosen(&["abacus".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("abacus") && error.contains("envelope"), "{error}");
        assert_eq!(chosen(&["topic".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn what_needs_nothing_is_built_first() {
        let target = |name: &str, features: &[&str]| Target {
            name: name.to_owned(),
            features: features.iter().map(|feature| (*feature).to_owned()).collect(),
        };
        let groups = by_features(vec![target("a", &["x"]), target("b", &[]), target("c", &["x"])]);
        let names: Vec<Vec<&str>> =
            groups.iter().map(|group| group.iter().map(|target| target.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["b"], vec!["a", "c"]]);
    }
}
