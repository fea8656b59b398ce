//! A found cell as text, for people.

use crate::{answer::Answer, genotype::Architecture};

/// Columns between two states.
const COLUMN: usize = 12;

/// The cell as a diagram: a column for each state, a row for each edge, an arrow where an edge ends.
pub fn cell(architecture: &Architecture) -> String {
    let genotype = &architecture.genotype;
    let states = genotype.nodes.len() + 2;
    let at = |state: usize| 3 + state * COLUMN;
    let width = at(states) + COLUMN;
    // The last row that reads each state; nodes also go into the output.
    let mut rows: Vec<(usize, usize, String)> = Vec::new();
    for (node, edges) in genotype.nodes.iter().enumerate() {
        for edge in edges {
            rows.push((edge.from, node + 2, edge.op.label(architecture.dim)));
        }
    }
    for node in 2..states {
        rows.push((node, states, String::new()));
    }
    let last_use = |state: usize| rows.iter().rposition(|row| row.0 == state);
    let first_in = |state: usize| rows.iter().position(|row| row.1 == state);
    let mut lines = Vec::new();
    let mut names = vec![' '; width];
    for state in 0..=states {
        let name = match state {
            0 => "in 0".to_owned(),
            1 => "in 1".to_owned(),
            _ if state == states => "concat".to_owned(),
            _ => format!("node {state}"),
        };
        put(&mut names, at(state).saturating_sub(name.len() / 2), &name);
    }
    lines.push(names);
    for (index, (from, to, label)) in rows.iter().enumerate() {
        let mut line = vec![' '; width];
        for state in 0..states {
            let begins = if state < 2 { Some(0) } else { first_in(state) };
            if begins.is_some_and(|row| row <= index) && last_use(state).is_some_and(|row| row >= index) {
                line[at(state)] = '│';
            }
        }
        line[at(*from)] = if last_use(*from) == Some(index) { '╰' } else { '├' };
        for cell in &mut line[at(*from) + 1..at(*to) - 1] {
            *cell = if *cell == '│' { '┼' } else { '─' };
        }
        line[at(*to) - 1] = '▶';
        line[at(*to)] = '●';
        if !label.is_empty() {
            // A long name leaves the arrow its place.
            let end = if label.len() > COLUMN - 6 { "" } else { " " };
            put(&mut line, at(*to) - COLUMN + 3, &format!(" {label}{end}"));
        }
        lines.push(line);
    }
    let stages = architecture.skeleton();
    let widths: Vec<String> = stages.cells.iter().map(|cell| cell.channels.to_string()).collect();
    let mut text = format!(
        "input {:?} ─▶ stem {} ─▶ {} cells of {} channels ─▶ {} ─▶ {} classes\n\n",
        architecture.input,
        stages.stem_channels,
        stages.cells.len(),
        widths.join(", "),
        match architecture.answer {
            Answer::Class => "mean",
            Answer::Next => "last position",
            Answer::ClassAndSlots { .. } => "mean, and each position for slots",
        },
        architecture.classes
    );
    for line in lines {
        text.push_str(line.into_iter().collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn put(line: &mut [char], at: usize, text: &str) {
    for (cell, letter) in line.iter_mut().skip(at).zip(text.chars()) {
        *cell = letter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genotype::{Dim, Edge, Genotype, Operation};

    #[test]
    fn draws_every_edge_once_with_its_operation() {
        let edge = |from, op| Edge { from, op };
        let architecture = Architecture {
            dim: Dim::Image,
            input: vec![1, 28, 28],
            classes: 10,
            channels: 8,
            cells: 2,
            answer: Default::default(),
            genotype: Genotype {
                nodes: vec![
                    vec![edge(0, Operation::CONV3), edge(1, Operation::SEP5)],
                    vec![edge(0, Operation::SKIP), edge(2, Operation::MAX3)],
                ],
            },
            layout: None,
        };
        let expected = "\
input [1, 28, 28] ─▶ stem 8 ─▶ 2 cells of 8, 16 channels ─▶ mean ─▶ 10 classes

 in 0        in 1       node 2      node 3      concat
   ├───────────┼── conv3 ─▶●
   │           ╰── sep5 ──▶●
   ╰───────────────────────┼── skip ──▶●
                           ├── max3 ──▶●
                           ╰───────────┼──────────▶●
                                       ╰──────────▶●
";
        assert_eq!(cell(&architecture), expected);
    }
}
