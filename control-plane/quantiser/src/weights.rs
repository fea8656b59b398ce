//! Weights as signed integers, symmetric, with one scale an output channel where the operator allows it.

use crate::affine::Affine;

/// Largest weight integer, and the same for 7 bits.
pub const WEIGHT_MAX: f32 = 127.0;
/// For x86 without VNNI, whose u8 x s8 sums saturate in 16 bits.
pub const WEIGHT_MAX_REDUCED: f32 = 63.0;
/// Largest integer that a bias may reach, far enough from the end of i32 for the sum that it joins.
const BIAS_MAX: f32 = 16_777_216.0;

/// Where the channels of a weight lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Values of one channel that lie side by side.
    inner: usize,
    /// Channels; one where all share a scale.
    pub(crate) channels: usize,
}

impl Layout {
    /// Channels along `axis` of `shape`; none is one scale for all.
    pub(crate) fn new(shape: &[usize], axis: Option<usize>) -> Self {
        match axis {
            Some(axis) => Self { inner: shape[axis + 1..].iter().product(), channels: shape[axis] },
            None => Self { inner: shape.iter().product(), channels: 1 },
        }
    }

    /// The channel of the value at `index`.
    pub(crate) fn channel(self, index: usize) -> usize {
        index / self.inner.max(1) % self.channels.max(1)
    }
}

/// One scale a channel: the largest weight fills the integers, unless the bias would then not fit its own. `bias` has
/// one value a channel, or any number where there is one channel.
pub(crate) fn scales(
    values: &[f32],
    layout: Layout,
    bias: &[f32],
    source: Affine,
    weight_max: f32,
) -> Vec<f32> {
    let mut largest = vec![0f32; layout.channels];
    for (index, value) in values.iter().enumerate() {
        let channel = &mut largest[layout.channel(index)];
        *channel = channel.max(value.abs());
    }
    let mut bias_largest = vec![0f32; layout.channels];
    for (index, value) in bias.iter().enumerate() {
        let channel = &mut bias_largest[index % layout.channels.max(1)];
        *channel = channel.max(value.abs());
    }
    let both = largest.iter().zip(&bias_largest);
    both.map(|(weight, bias)| scale(*weight, *bias, source, weight_max)).collect()
}

/// The scale for weights and a bias of these magnitudes.
pub fn scale(weight: f32, bias: f32, source: Affine, weight_max: f32) -> f32 {
    let scale = (weight / weight_max).max(bias / (source.scale * BIAS_MAX));
    // A channel of zeros; and the product with the activation's scale must stay a normal number.
    let floor = f32::MIN_POSITIVE * 4.0 / source.scale.min(1.0);
    if scale > floor { scale } else { 1.0 / weight_max }
}

/// A weight as its integer.
pub fn integer(value: f32, scale: f32, weight_max: f32) -> i8 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to an i8")]
    let integer = (value / scale).round_ties_even().clamp(-weight_max, weight_max) as i8;
    integer
}

/// A bias as its integer.
pub(crate) fn bias_integer(value: f32, scale: f32) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is wanted")]
    let integer = (value / scale).round_ties_even() as i32;
    integer
}
