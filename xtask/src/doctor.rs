//! What is there, what is missing, and how to get it.

use crate::{cache::Cache, dashboard, pins, pins::Need, setup, system};
use anyhow::{Result, bail};
use serde::Serialize;
use std::process::Command;

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    present: bool,
    required: bool,
    /// A version or a path where it is present, else how to get it.
    detail: String,
}

/// Prints a table, or JSON; an error where something required is missing.
pub(crate) fn run(cache: &Cache, json: bool) -> Result<()> {
    let findings = look(cache)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = match (finding.present, finding.required) {
                (true, _) => console::style("✔").green(),
                (false, true) => console::style("✘").red(),
                (false, false) => console::style("–").yellow(),
            };
            println!("{mark} {:<46} {}", finding.what, finding.detail);
        }
    }
    let missing = findings.iter().filter(|finding| finding.required && !finding.present).count();
    if missing > 0 {
        bail!("{missing} required things are missing; see above");
    }
    Ok(())
}

fn look(cache: &Cache) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (program, how) in [
        ("cargo", "https://rustup.rs or your system's packages"),
        ("cc", "a C compiler: apt-get install gcc libc6-dev"),
        ("c++", "a C++ compiler: apt-get install g++"),
        ("python3", "apt-get install python3 python3-pip python3-venv"),
        ("npm", "apt-get install nodejs npm"),
    ] {
        let version = version(program);
        findings.push(Finding {
            what: program.to_owned(),
            present: version.is_some(),
            required: true,
            detail: version.unwrap_or_else(|| how.to_owned()),
        });
    }
    for entry in pins::entries()? {
        let present = setup::is_there(cache, &entry)?;
        let folder = cache.join(&entry.name);
        let how = match entry.need {
            Need::Build | Need::Run | Need::Optional => "cargo xtask setup",
            Need::Cross => "cargo xtask setup --cross",
            Need::Models => "cargo xtask setup --peers",
        };
        findings.push(Finding {
            what: entry.what,
            present,
            required: matches!(entry.need, Need::Build | Need::Run),
            detail: if present { folder.display().to_string() } else { how.to_owned() },
        });
    }
    for (name, what, requirements, required) in [
        ("venv-tools", "Python tools of the tests", "requirements-tools.txt", true),
        ("venv-api", "Schemathesis, which tests the API", "requirements-api.txt", true),
        ("venv-torch", "PyTorch with CUDA, for a GPU and bench search", "requirements-torch.txt", false),
    ] {
        let present = setup::venv_is_there(cache, name, requirements)?;
        let how = if required { "cargo xtask setup" } else { "cargo xtask setup --gpu, or --peers" };
        let detail = if present { cache.join(name).display().to_string() } else { how.to_owned() };
        findings.push(Finding { what: what.to_owned(), present, required, detail });
    }
    let present = dashboard::is_there(cache)?;
    findings.push(Finding {
        what: "The dashboard, built".to_owned(),
        present,
        required: true,
        detail: if present {
            dashboard::folder(cache).display().to_string()
        } else {
            "cargo xtask setup".to_owned()
        },
    });
    for tool in system::TOOLS {
        let path = system::find(tool.program);
        findings.push(Finding {
            what: tool.program.to_owned(),
            present: path.is_some(),
            required: false,
            detail: match path {
                Some(path) => path.display().to_string(),
                None => format!("apt-get install {} (without: no {})", tool.packages.join(" "), tool.without),
            },
        });
    }
    Ok(findings)
}

fn version(program: &str) -> Option<String> {
    let output =
        Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
