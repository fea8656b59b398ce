//! How real numbers become integers: activations u8 asymmetric.

/// Steps between the smallest and the largest u8.
const STEPS: f32 = 255.0;
/// Narrowest range that is told apart from nothing; below it a value is constant zero.
const RANGE_MIN: f32 = 1e-12;

/// `real = scale * (integer - zero_point)` with a u8 integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Value of one step; positive and normal.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: u8,
}

impl Affine {
    /// The encoding of a range; zero is always in it, and a range of nothing gets a scale of 1/255.
    ///
    /// # Errors
    /// A bound that is not finite, or bounds in the wrong order.
    pub fn from_range(low: f32, high: f32) -> Result<Self, String> {
        if !low.is_finite() || !high.is_finite() || low > high {
            return Err(format!("the range {low} to {high} is none"));
        }
        let (low, high) = (low.min(0.0), high.max(0.0));
        let width = high - low;
        if !width.is_finite() {
            return Err(format!("the range {low} to {high} is too wide"));
        }
        if width < RANGE_MIN {
            return Ok(Self { scale: 1.0 / STEPS, zero_point: 0 });
        }
        let scale = width / STEPS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a u8")]
        let zero_point = (-low / scale).round_ties_even().clamp(0.0, STEPS) as u8;
        Ok(Self { scale, zero_point })
    }

    /// Smallest value.
    pub fn low(self) -> f32 {
        -f32::from(self.zero_point) * self.scale
    }

    /// Largest value.
    pub fn high(self) -> f32 {
        (STEPS - f32::from(self.zero_point)) * self.scale
    }

    /// `value` after it has been an integer.
    pub fn round_trip(self, value: f32) -> f32 {
        let zero = f32::from(self.zero_point);
        (((value / self.scale).round_ties_even() + zero).clamp(0.0, STEPS) - zero) * self.scale
    }
}
