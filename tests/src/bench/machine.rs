//! The machine that numbers were measured on.

use serde::Serialize;

/// What a reader of a report has to know of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// As the kernel names it; empty where it does not.
    pub cpu: String,
    /// That this process may use.
    pub cores: usize,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { cpu: model_name(&text).unwrap_or_default().to_owned(), cores }
    }
}

fn model_name(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_model_name_is_the_processors() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n\nmodel name\t: B\n";
        assert_eq!(model_name(text), Some("A CPU @ 2 GHz"));
        assert_eq!(model_name("Hardware: C"), None);
    }
}
