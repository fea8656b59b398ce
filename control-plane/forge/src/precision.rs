//! In which numbers a network is trained.

use tch::Device;

/// In which numbers a forward pass is computed. Parameters, losses and optimisers are f32 in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    Full,
    /// Convolutions and matrix products take and give f16, what needs more range stays f32 (Micikevicius et al. 2018, "Mixed
    /// Precision Training"). Small gradients vanish in f16: [`crate::optim::LossScale`] goes with it.
    Mixed,
}

impl Precision {
    /// That of trainings on this device: a GPU multiplies f16 several times as fast.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::Mixed } else { Self::Full }
    }

    /// What `pass`, a forward pass, gives when it is computed so. Tensors may come back as f16.
    pub fn compute<T>(self, pass: impl FnOnce() -> T) -> T {
        match self {
            Self::Full => pass(),
            Self::Mixed => tch::autocast(true, pass),
        }
    }

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "f32",
            Self::Mixed => "f16 and f32",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gpu_trains_in_fewer_bits() {
        assert_eq!(Precision::of(Device::Cpu), Precision::Full);
        assert_eq!(Precision::of(Device::Cuda(1)), Precision::Mixed);
        assert_eq!([Precision::Full, Precision::Mixed].map(Precision::name), ["f32", "f16 and f32"]);
        assert_eq!(Precision::Full.compute(|| 7), 7);
    }
}
