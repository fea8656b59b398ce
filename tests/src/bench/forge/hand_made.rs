//! The network that a person would write down: residual blocks of two convolutions (He et al. 2016), which for series
//! is the ResNet of Wang, Yan and Oates (2017). It is laid out as the searched one: same stem, stages and head.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The searched architecture `found`, as `arch.json` holds it, with the cell of a residual network in place of its own.
///
/// # Errors
/// `found` is no architecture.
pub fn of_the_layout_of(found: &str) -> Result<String> {
    let mut architecture: Value = serde_json::from_str(found).context("arch.json is no JSON")?;
    let nodes = architecture.pointer("/genotype/nodes").and_then(Value::as_array).map(Vec::len);
    let nodes = nodes.context("arch.json has no genotype")?;
    ensure!(nodes > 0, "the genotype has no nodes");
    // Node n is state n + 2: a convolution over the state before it, past which the state before that goes unchanged.
    let cell: Vec<Value> = (0..nodes)
        .map(|node| json!([{ "from": node + 1, "op": "conv" }, { "from": node, "op": "skip" }]))
        .collect();
    architecture["genotype"] = json!({ "nodes": cell });
    Ok(architecture.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cell_is_another() {
        let found = json!({
            "channels": 8,
            "genotype": { "nodes": [[{ "from": 0, "op": "max_pool" }], [{ "from": 2, "op": "skip" }]] },
        });
        let made: Value = serde_json::from_str(&of_the_layout_of(&found.to_string()).unwrap()).unwrap();
        assert_eq!(made["channels"], 8);
        assert_eq!(
            made["genotype"]["nodes"][1],
            json!([{ "from": 2, "op": "conv" }, { "from": 1, "op": "skip" }])
        );
        assert_eq!(of_the_layout_of("{}").unwrap_err().to_string(), "arch.json has no genotype");
    }
}
