//! Who may use whom within the control plane, where Cargo cannot say it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each module, and the modules of this crate that it may name. `serve` and `cli` stand above all others.
const ALLOWED: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("broker", &[]),
    ("signer", &[]),
    ("jobs", &[]),
    ("repository", &["signer"]),
    ("app", &["store", "broker", "signer", "jobs", "repository"]),
    ("api", &["app", "page"]),
    ("page", &["app", "api"]),
];

/// Crates that belong to one module alone.
const OWNED: &[(&str, &str)] = &[
    ("sqlx", "store"),
    ("rmqtt", "broker"),
    ("rumqttc", "broker"),
    ("rcgen", "signer"),
    ("maud", "page"),
    ("ureq", "cli"),
    ("clap", "cli"),
    ("clap_complete", "cli"),
    ("console", "cli"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source with the module that it belongs to and its text; tests stand beside the rules.
fn modules() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .filter(|path| {
            let mut parts = path.strip_prefix(&root).unwrap().components();
            parts.all(|part| !matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")))
        })
        .map(|path| {
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (module, path, text)
        })
        .collect()
}

/// Modules of this crate that a text names, in paths and in groups: after `crate::`, and after as many `super::` as
/// the file is `depth` modules below the root.
fn named(text: &str, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    let root = "super::".repeat(depth);
    let up = text.match_indices(&root).filter(|_| depth > 0).map(|(at, _)| at + root.len());
    let starts = text.match_indices("crate::").map(|(at, found)| at + found.len()).chain(up);
    for start in starts {
        let rest = &text[start..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            let mut fresh = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && fresh && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                    continue;
                }
                if !word.is_empty() {
                    names.push(std::mem::take(&mut word));
                    fresh = false;
                }
                if depth == 1 && c == ',' {
                    fresh = true;
                }
            }
            names.extend((!word.is_empty()).then_some(word));
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// How many modules a source is below the root: `app.rs` is one, `app/jobs.rs` is two.
fn depth(path: &Path) -> usize {
    path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().components().count()
}

#[test]
fn reads_groups_of_imports() {
    let text =
        "use crate::{\n    api,\n    app::{App, chain},\n    store::Store,\n};\ncrate::signer::write(x)";
    assert_eq!(named(text, 1), ["api", "app", "store", "signer"]);
}

#[test]
fn reads_paths_that_climb_to_the_root() {
    assert_eq!(named("use super::super::store::Store;", 2), ["store"]);
    assert_eq!(named("use super::super::{app, store::{Store, Page}};", 2), ["app", "store"]);
    assert!(named("use super::Store;", 2).is_empty());
}

#[test]
fn no_module_names_one_that_it_may_not_use() {
    let known: Vec<&str> = ALLOWED.iter().map(|(module, _)| *module).collect();
    let mut looked_at = 0;
    for (module, path, text) in modules() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else { continue };
        looked_at += 1;
        for name in named(&text, depth(&path)) {
            let own = name == module || !(known.contains(&name.as_str()) || name == "serve" || name == "cli");
            assert!(own || allowed.contains(&name.as_str()), "{} names {name}", path.display());
        }
    }
    assert!(looked_at > 30, "only {looked_at} sources were found");
}

#[test]
fn each_library_stays_in_its_module() {
    for (module, path, text) in modules() {
        for (library, owner) in OWNED {
            let uses = [format!("use {library}::"), format!(" {library}::"), format!("({library}::")];
            let named = uses.iter().any(|spelling| text.contains(spelling.as_str()));
            assert!(module == *owner || !named, "{} uses {library}", path.display());
        }
    }
}
