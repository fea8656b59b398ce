//! The stem and the stages of a network.

use super::{Dim, Stage, longest};
use serde::{Deserialize, Serialize};
use shared::space::{self, KERNEL_MAX, WIDTH_MAX};

/// Most stages of a network that says nothing of its layout.
const STAGES_MAX: usize = 3;
/// Greatest stride of a stem.
const STEM_STRIDE_MAX: usize = 4;
/// A stem halves the resolution from this size of its longest axis on.
const STEM_STRIDE_FROM: usize = 28;

/// What a network is around its cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Taps of the first convolution along each axis.
    pub stem_kernel: usize,
    pub stem_stride: usize,
    /// Cells and their widths.
    pub stages: Vec<Stage>,
}

impl Layout {
    /// For a sample of shape `input`: up to three stages, each twice as wide as the one before.
    pub fn usual(input: &[usize], cells: usize) -> Self {
        let longest = longest(input);
        let stages = cells.min(STAGES_MAX);
        let of_stage = |stage: usize| (0..cells).filter(|cell| cell * stages / cells == stage).count();
        Self {
            stem_kernel: match Dim::of_samples(input) {
                Dim::Series => 9,
                Dim::Image => 3,
            },
            stem_stride: if longest >= STEM_STRIDE_FROM { 2 } else { 1 },
            stages: (0..stages)
                .map(|stage| Stage { width: 1 << stage, cells: of_stage(stage) as u32 })
                .collect(),
        }
    }

    /// Cells of all stages.
    pub(super) fn cells(&self) -> usize {
        self.stages.iter().map(|stage| stage.cells as usize).fold(0, usize::saturating_add)
    }

    /// That it is a layout of `cells` cells, within limits.
    pub(super) fn validate(&self, cells: usize) -> Result<(), String> {
        let Self { stem_kernel, stem_stride, stages } = self;
        if stem_kernel % 2 == 0
            || *stem_kernel > KERNEL_MAX.into()
            || !(1..=STEM_STRIDE_MAX).contains(stem_stride)
        {
            return Err("layout: stem_kernel or stem_stride out of range".to_owned());
        }
        let sane = |stage: &Stage| stage.cells > 0 && (1..=WIDTH_MAX).contains(&stage.width);
        if stages.is_empty() || stages.len() > space::STAGES_MAX || !stages.iter().all(sane) {
            return Err("layout: stages out of range".to_owned());
        }
        if self.cells() != cells {
            return Err(format!("layout: {} cells in its stages, cells is {cells}", self.cells()));
        }
        Ok(())
    }
}
