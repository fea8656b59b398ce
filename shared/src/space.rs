//! What a search may find, as data: one TOML file a space, checked when it is read. Those of
//! `control-plane/forge/spaces` are built in.

mod operation;

pub use operation::{Dim, KERNEL_MAX, Operation, OperationKind, UnknownOperation};

use crate::{job::Budget, read, wire::one_line};
use serde::{Deserialize, Serialize};

/// Largest file that is read as a space.
pub const FILE_BYTES_MAX: usize = 64 * 1024;
/// Most operations of a space.
pub const OPERATIONS_MAX: usize = 24;
/// Most states that a node may sum.
pub const FAN_IN_MAX: u32 = 4;
/// Most stages of a network.
pub const STAGES_MAX: usize = 8;
/// Most times that a stage may be as wide as the first convolution.
pub const WIDTH_MAX: u32 = 64;
/// Most cells of a network, and nodes of a cell.
const CELLS_MAX: u32 = 32;
const NODES_MAX: u32 = 8;
const STEM_STRIDE_MAX: u32 = 4;

/// Built-in spaces: name and file.
const BUILT_IN: [(&str, &str); 6] = [
    ("image", include_str!("../../control-plane/forge/spaces/image.toml")),
    ("series", include_str!("../../control-plane/forge/spaces/series.toml")),
    ("table", include_str!("../../control-plane/forge/spaces/table.toml")),
    ("image-fine", include_str!("../../control-plane/forge/spaces/image-fine.toml")),
    ("image-rich", include_str!("../../control-plane/forge/spaces/image-rich.toml")),
    ("series-rich", include_str!("../../control-plane/forge/spaces/series-rich.toml")),
];

/// What a search may find, and what it is held to on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchSpace {
    /// For people.
    pub name: String,
    /// What its networks slide over.
    pub dim: Dim,
    /// What an edge may do.
    pub operations: Vec<Operation>,
    #[serde(default)]
    pub cell: CellSpace,
    #[serde(default)]
    pub network: NetworkSpace,
    #[serde(default)]
    pub regularise: Regularise,
    #[serde(default)]
    pub hypernetwork: Generated,
}

/// What a cell looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CellSpace {
    /// Nodes; as the budget says where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// A node may read so many of the states before it; all of them where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<u32>,
    /// States that a node of a found cell sums.
    #[serde(default = "two")]
    pub fan_in: u32,
}

/// What a network of such cells looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NetworkSpace {
    /// Taps of the first convolution along each axis; 3 in images and 9 in series where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem_kernel: Option<u32>,
    /// Its stride; 2 for long axes and 1 for short ones where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem_stride: Option<u32>,
    /// Stages in order, the resolution halved before each but the first; up to three with the budget's cells, each twice
    /// as wide as the one before, where none are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// Cells of one width and resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SpaceStage"))]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Times the channels of the first convolution.
    pub width: u32,
    pub cells: u32,
}

/// What keeps a search by gradients from settling on what is easiest at first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Regularise {
    /// Weight of half the squares of the architecture weights in their loss.
    pub alpha_l2: f64,
    /// Probability with which a skip connection is dropped from a step at first; it falls to zero in a straight line.
    pub skip_dropout: f64,
    /// The same for each other operation that gives something.
    pub operation_dropout: f64,
}

/// What the method `hypernetwork` generates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Generated {
    /// For each cell of the network in order, the share of the output channels of each candidate convolution whose kernels
    /// are generated; the others are its own. The last one goes on.
    pub sharing: Vec<f64>,
}

impl Default for CellSpace {
    fn default() -> Self {
        Self { nodes: None, reads: None, fan_in: two() }
    }
}

impl Default for Regularise {
    fn default() -> Self {
        Self { alpha_l2: 1e-3, skip_dropout: 0.4, operation_dropout: 0.0 }
    }
}

impl Default for Generated {
    fn default() -> Self {
        Self { sharing: vec![0.5] }
    }
}

impl Generated {
    /// The share of the cell with that number.
    pub fn share(&self, cell: usize) -> f64 {
        self.sharing.get(cell).or(self.sharing.last()).copied().unwrap_or_default()
    }
}

fn two() -> u32 {
    2
}

/// Why a text is no space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not TOML, an unknown key, a missing key or a value of the wrong kind.
    #[error("{origin}: {message}")]
    Toml { origin: String, message: String },
    /// A value out of range.
    #[error("{origin}: {key} is {value}, allowed is {allowed}")]
    Range { origin: String, key: &'static str, value: String, allowed: String },
}

impl SearchSpace {
    /// Reads a space from TOML text. `origin` names the file in errors.
    ///
    /// # Errors
    /// Names the file, the key, the value and what is allowed.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, Error> {
        if text.len() > FILE_BYTES_MAX {
            let allowed = format!("at most {FILE_BYTES_MAX}");
            return Err(range(origin, "size in bytes", text.len(), allowed));
        }
        let space: Self = toml::from_str(text).map_err(|error| Error::Toml {
            origin: origin.to_owned(),
            message: read::toml_message(text, &error),
        })?;
        space.check(origin)?;
        Ok(space)
    }

    /// The text of the built-in space of that name.
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Names of the built-in spaces; the first three are what is taken for images, series and rows of a table where none is
    /// named.
    pub fn built_in_names() -> [&'static str; 6] {
        BUILT_IN.map(|(name, _)| name)
    }

    /// What is searched where no space is named.
    pub fn usual(dim: Dim) -> Self {
        let operations = Operation::FIRST.map(|operation| operation.over(dim)).to_vec();
        Self {
            name: dim.name().to_owned(),
            dim,
            operations,
            cell: CellSpace::default(),
            network: NetworkSpace::default(),
            regularise: Regularise::default(),
            hypernetwork: Generated::default(),
        }
    }

    /// What is searched in samples of `shape` where no space is named. One of a single position, as a row of a table is,
    /// has nothing to slide over.
    pub fn usual_for(shape: &[usize]) -> Self {
        let usual = Self::usual(Dim::of_samples(shape));
        if !matches!(shape, [_, 1]) {
            return usual;
        }
        Self {
            name: "table".to_owned(),
            operations: vec![
                Operation::CONV1,
                Operation::GLU1,
                Operation::SE,
                Operation::SKIP,
                Operation::ZERO,
            ],
            network: NetworkSpace { stem_kernel: Some(1), ..NetworkSpace::default() },
            ..usual
        }
    }

    /// `budget` with the nodes and cells that this space prescribes.
    pub fn applied(&self, budget: Budget) -> Budget {
        let cells = self.network.stages.iter().fold(0u32, |sum, stage| sum.saturating_add(stage.cells));
        Budget {
            nodes: self.cell.nodes.unwrap_or(budget.nodes),
            cells: if cells > 0 { cells } else { budget.cells },
            ..budget
        }
    }

    /// That it is for samples of `shape`, `[C, L]` or `[C, H, W]`.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn check_samples(&self, shape: &[usize]) -> Result<(), String> {
        let dim = Dim::of_samples(shape);
        if self.dim == dim {
            return Ok(());
        }
        Err(format!(
            "the space {:?} is for dim = {:?}, the data set holds samples of shape {shape:?}: name a space for {:?}",
            self.name,
            self.dim.name(),
            dim.name()
        ))
    }

    /// Checks what is not said by the types. `origin` names the file in errors.
    ///
    /// # Errors
    /// Names the file, the key, the value and what is allowed.
    pub fn check(&self, origin: &str) -> Result<(), Error> {
        if self.name.is_empty() || self.name.len() > 60 {
            let value = format!("{} bytes long", self.name.len());
            return Err(range(origin, "name", value, "1 to 60 bytes".to_owned()));
        }
        self.check_operations(origin)?;
        let within = |key, value: Option<u32>, low: u32, high: u32| match value {
            Some(value) if !(low..=high).contains(&value) => {
                Err(range(origin, key, value, format!("{low} to {high}")))
            }
            Some(_) | None => Ok(()),
        };
        within("cell.nodes", self.cell.nodes, 1, NODES_MAX)?;
        within("cell.reads", self.cell.reads, 1, NODES_MAX + 1)?;
        within("cell.fan_in", Some(self.cell.fan_in), 1, FAN_IN_MAX)?;
        let network = &self.network;
        if let Some(kernel) =
            network.stem_kernel.filter(|kernel| kernel % 2 == 0 || *kernel > KERNEL_MAX.into())
        {
            return Err(range(origin, "network.stem_kernel", kernel, format!("odd, 1 to {KERNEL_MAX}")));
        }
        within("network.stem_stride", network.stem_stride, 1, STEM_STRIDE_MAX)?;
        if network.stages.len() > STAGES_MAX {
            return Err(range(
                origin,
                "network.stages",
                network.stages.len(),
                format!("at most {STAGES_MAX}"),
            ));
        }
        for stage in &network.stages {
            within("network.stages.width", Some(stage.width), 1, WIDTH_MAX)?;
            within("network.stages.cells", Some(stage.cells), 1, CELLS_MAX)?;
        }
        let cells: u32 = network.stages.iter().map(|stage| stage.cells).sum();
        within("network.stages.cells in all", Some(cells), 0, CELLS_MAX)?;
        let part = |key, value: f64, most: f64| {
            if (0.0..=most).contains(&value) {
                Ok(())
            } else {
                Err(range(origin, key, value, format!("0 to {most}")))
            }
        };
        part("regularise.alpha_l2", self.regularise.alpha_l2, 1.0)?;
        part("regularise.skip_dropout", self.regularise.skip_dropout, 0.9)?;
        part("regularise.operation_dropout", self.regularise.operation_dropout, 0.9)?;
        let sharing = &self.hypernetwork.sharing;
        if !(1..=CELLS_MAX as usize).contains(&sharing.len()) {
            let allowed = format!("a list of 1 to {CELLS_MAX}");
            return Err(range(origin, "hypernetwork.sharing", format!("{} long", sharing.len()), allowed));
        }
        sharing.iter().try_for_each(|share| part("hypernetwork.sharing", *share, 1.0))
    }

    fn check_operations(&self, origin: &str) -> Result<(), Error> {
        let shown = || self.operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let wrong = |allowed: &str| Err(range(origin, "operations", shown(), allowed.to_owned()));
        if self.operations.len() > OPERATIONS_MAX {
            let allowed = format!("at most {OPERATIONS_MAX}");
            return Err(range(origin, "operations", self.operations.len(), allowed));
        }
        let mut sorted: Vec<Operation> = self.operations.iter().map(|one| one.over(self.dim)).collect();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != self.operations.len() {
            return wrong("each operation once");
        }
        if !self.operations.iter().any(|one| ![Operation::SKIP, Operation::ZERO].contains(one)) {
            return wrong("a list with an operation that is neither skip nor zero");
        }
        Ok(())
    }
}

fn range(origin: &str, key: &'static str, value: impl ToString, allowed: String) -> Error {
    Error::Range { origin: origin.to_owned(), key, value: one_line(&value.to_string()), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Task;

    const GOOD: &str = r#"
name = "mine"
dim = "series"
operations = ["conv7", "sep15d2", "glu3", "se", "attend9", "max3", "skip", "zero"]
[cell]
nodes = 3
reads = 3
fan_in = 2
[network]
stem_kernel = 9
stem_stride = 2
stages = [{ width = 1, cells = 1 }, { width = 3, cells = 2 }]
[regularise]
operation_dropout = 0.2
[hypernetwork]
sharing = [1.0, 0.25]
"#;

    #[test]
    fn a_space_reads_survives_json_and_sets_nodes_and_cells_of_the_budget() {
        let space = SearchSpace::from_toml(GOOD, "mine.toml").unwrap();
        assert_eq!(space.operations.len(), 8);
        assert_eq!((space.regularise.alpha_l2, space.regularise.operation_dropout), (1e-3, 0.2));
        assert_eq!([0, 1, 7].map(|cell| space.hypernetwork.share(cell)), [1.0, 0.25, 0.25]);
        let json = serde_json::to_string(&space).unwrap();
        assert_eq!(serde_json::from_str::<SearchSpace>(&json).unwrap(), space);
        let toml = toml::to_string(&space).unwrap();
        assert_eq!(SearchSpace::from_toml(&toml, "again.toml").unwrap(), space);
        let budget = space.applied(Budget::quick(Task::SeriesClassification));
        assert_eq!((budget.nodes, budget.cells, budget.channels), (3, 3, 16));
        assert_eq!(space.applied(budget), budget);
    }

    #[test]
    fn every_built_in_space_loads_by_its_name_and_the_usual_ones_are_among_them() {
        for name in SearchSpace::built_in_names() {
            let text = SearchSpace::built_in_text(name).unwrap();
            assert_eq!(SearchSpace::from_toml(text, name).unwrap().name, name);
        }
        for dim in [Dim::Image, Dim::Series] {
            let text = SearchSpace::built_in_text(dim.name()).unwrap();
            assert_eq!(SearchSpace::from_toml(text, dim.name()), Ok(SearchSpace::usual(dim)));
        }
        let table = SearchSpace::built_in_text("table").unwrap();
        assert_eq!(SearchSpace::from_toml(table, "table"), Ok(SearchSpace::usual_for(&[9, 1])));
        assert_eq!(SearchSpace::usual_for(&[1, 9]), SearchSpace::usual(Dim::Series));
        assert_eq!(SearchSpace::built_in_text("none"), None);
    }

    #[test]
    fn an_error_names_file_key_value_and_what_is_allowed() {
        let message = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            SearchSpace::from_toml(&GOOD.replace(from, to), "mine.toml").unwrap_err().to_string()
        };
        assert_eq!(message("nodes = 3", "nodes = 9"), "mine.toml: cell.nodes is 9, allowed is 1 to 8");
        assert_eq!(message("fan_in = 2", "fan_in = 5"), "mine.toml: cell.fan_in is 5, allowed is 1 to 4");
        assert_eq!(
            message("stem_kernel = 9", "stem_kernel = 4"),
            "mine.toml: network.stem_kernel is 4, allowed is odd, 1 to 31"
        );
        assert_eq!(
            message("width = 3", "width = 65"),
            "mine.toml: network.stages.width is 65, allowed is 1 to 64"
        );
        assert_eq!(
            message("operation_dropout = 0.2", "operation_dropout = 1.0"),
            "mine.toml: regularise.operation_dropout is 1, allowed is 0 to 0.9"
        );
        assert_eq!(message("0.25]", "1.25]"), "mine.toml: hypernetwork.sharing is 1.25, allowed is 0 to 1");
        let unknown = message("conv7", "conv8");
        assert!(unknown.starts_with("mine.toml: line 4: no operation \"conv8\"; allowed are"), "{unknown}");
        assert!(message("reads = 3", "reeds = 3").contains("reeds"));
        assert!(message("\"conv7\"", "\"se\"").ends_with("allowed is each operation once"));
        let bare = GOOD.replace("\"conv7\", \"sep15d2\", \"glu3\", \"se\", \"attend9\", \"max3\", ", "");
        let error = SearchSpace::from_toml(&bare, "mine.toml").unwrap_err().to_string();
        assert!(error.contains("operations is skip, zero, allowed is a list with"), "{error}");
    }
}
