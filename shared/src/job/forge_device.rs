//! What of its machine a worker computes on.

use std::{fmt, str::FromStr};

/// The environment variable that says so to a worker, as its `--device` does.
pub const FORGE_DEVICE_ENV: &str = "EDGEWRIGHT_FORGE_DEVICE";

/// What a worker is asked to compute on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForgeDevice {
    /// The first GPU that libtorch can use, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number, counted from 0.
    Cuda(usize),
}

/// A text that is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no device of a worker, allowed are auto, cpu, cuda and cuda:N")]
pub struct NoForgeDevice {
    text: String,
}

impl fmt::Display for ForgeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for ForgeDevice {
    type Err = NoForgeDevice;

    fn from_str(text: &str) -> Result<Self, NoForgeDevice> {
        let known = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            // A number that libtorch's devices, of one byte, can have.
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse::<u8>().ok())
                .map(|number| Self::Cuda(usize::from(number))),
        };
        known.ok_or_else(|| NoForgeDevice { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written_and_others_are_told_what_is_allowed() {
        for device in [ForgeDevice::Auto, ForgeDevice::Cpu, ForgeDevice::Cuda(0), ForgeDevice::Cuda(7)] {
            assert_eq!(device.to_string().parse::<ForgeDevice>(), Ok(device));
        }
        assert_eq!("cuda".parse::<ForgeDevice>(), Ok(ForgeDevice::Cuda(0)));
        for text in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:one", "cuda:256", "cpu:0"] {
            let error = text.parse::<ForgeDevice>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{text:?} is no device of a worker, allowed are auto, cpu, cuda and cuda:N")
            );
        }
        assert_eq!(ForgeDevice::default(), ForgeDevice::Auto);
    }
}
