//! The stem and the stages of a network.

use super::{Dim, Stage, longest};
use crate::answer::Answer;
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
    /// For a sample of shape `input`: up to three stages, each twice as wide as the one before; where positions are
    /// answered, one, with all of them.
    pub fn usual(answer: Answer, input: &[usize], cells: usize) -> Self {
        let longest = longest(input);
        let stages = if answer.is_class() { cells.min(STAGES_MAX) } else { cells.min(1) };
        let of_stage = |stage: usize| (0..cells).filter(|cell| cell * stages / cells == stage).count();
        Self {
            stem_kernel: match Dim::of_samples(input) {
                Dim::Series => 9,
                Dim::Image => 3,
            },
            stem_stride: if longest >= STEM_STRIDE_FROM && answer.is_class() { 2 } else { 1 },
            stages: (0..stages)
                .map(|stage| Stage { width: 1 << stage, cells: of_stage(stage) as u32 })
                .collect(),
        }
    }

    /// Cells of all stages.
    pub(super) fn cells(&self) -> usize {
        self.stages.iter().map(|stage| stage.cells as usize).fold(0, usize::saturating_add)
    }

    /// That all positions are left at the end where `answer` needs them.
    ///
    /// # Errors
    /// A sentence.
    pub fn check_keeps_positions(&self, answer: Answer) -> Result<(), String> {
        if answer.is_class() || (self.stem_stride == 1 && self.stages.len() == 1) {
            return Ok(());
        }
        Err(format!(
            "stem_stride is {} and there are {} stages: where every position is answered, the stem has a stride of 1 and \
             all cells are in one stage",
            self.stem_stride,
            self.stages.len()
        ))
    }

    /// That it is a layout of `cells` cells for `answer`, within limits.
    pub(super) fn validate(&self, answer: Answer, cells: usize) -> Result<(), String> {
        self.check_keeps_positions(answer).map_err(|error| format!("layout: {error}"))?;
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
