//! What an edge of a cell may do. A name says it all: kind, kernel, dilation, as in `conv3`, `sep5d2` or `skip`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Axes that a network slides over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// `[C, L]`.
    Series,
    /// `[C, H, W]`.
    Image,
}

impl Dim {
    /// That of samples of `shape`, channels first.
    pub fn of_samples(shape: &[usize]) -> Self {
        if shape.len() == 2 { Self::Series } else { Self::Image }
    }

    /// How many they are.
    pub fn axes(self) -> u32 {
        match self {
            Self::Series => 1,
            Self::Image => 2,
        }
    }

    /// As in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Image => "image",
        }
    }
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationKind {
    /// A dense convolution with BatchNorm.
    Conv,
    /// A depthwise convolution, then a pointwise one with BatchNorm.
    SepConv,
    /// A dense convolution with BatchNorm to twice the channels, of which one half gates the other (Dauphin et al. 2017,
    /// "Language Modeling with Gated Convolutional Networks").
    Gated,
    /// A gate for each position, from a convolution to one channel: spatial attention (Woo et al. 2018, "CBAM", section
    /// 3.2; Roy, Navab and Wachinger 2018, "Concurrent Spatial and Channel Squeeze & Excitation").
    Attention,
    /// A gate for each channel, from the mean over all positions (Hu, Shen and Sun 2018, "Squeeze-and-Excitation
    /// Networks").
    SqueezeExcite,
    /// Maximum over a window.
    MaxPool,
    /// Mean over a window, padding counted.
    AvgPool,
    /// The value itself.
    Skip,
    /// Nothing.
    Zero,
}

/// Of how many channels the bottleneck of a squeeze-excite has one.
const SQUEEZE: u64 = 4;
/// Most taps along one axis.
pub const KERNEL_MAX: u8 = 31;
/// Most distance between taps.
pub const DILATION_MAX: u8 = 16;

impl OperationKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Conv,
        Self::SepConv,
        Self::Gated,
        Self::Attention,
        Self::SqueezeExcite,
        Self::MaxPool,
        Self::AvgPool,
        Self::Skip,
        Self::Zero,
    ];

    /// The first part of an operation's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::SepConv => "sep",
            Self::Gated => "glu",
            Self::Attention => "attend",
            Self::SqueezeExcite => "se",
            Self::MaxPool => "max",
            Self::AvgPool => "avg",
            Self::Skip => "skip",
            Self::Zero => "zero",
        }
    }

    /// Fewest taps along one axis; `None` where there is no window.
    fn kernel_min(self) -> Option<u8> {
        match self {
            Self::Conv | Self::Gated | Self::Attention => Some(1),
            Self::SepConv | Self::MaxPool | Self::AvgPool => Some(3),
            Self::SqueezeExcite | Self::Skip | Self::Zero => None,
        }
    }

    fn dilates(self) -> bool {
        matches!(self, Self::Conv | Self::SepConv | Self::Gated)
    }
}

/// A candidate operation of an edge. All keep the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Operation {
    kind: OperationKind,
    /// Taps along one axis. 0 without a window, and for a separable convolution of a file from before kernels had
    /// numbers: 5 in images, 15 in series.
    kernel: u8,
    dilation: u8,
}

#[cfg(feature = "schema")]
crate::text_schema!(Operation, "Operation", { "pattern": "^[a-z]+[0-9]*(d[0-9]+)?$" });

/// No operation has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no operation {name:?}; allowed are conv, glu and attend with an odd number of taps, as conv3, sep, max and avg with \
     at least 3, at most {KERNEL_MAX} each, conv, sep and glu also dilated, as sep5d2, by at most {DILATION_MAX}, and se, \
     skip and zero"
)]
pub struct UnknownOperation {
    name: String,
}

impl Operation {
    /// The value itself.
    pub const SKIP: Self = Self::bare(OperationKind::Skip);
    /// Nothing.
    pub const ZERO: Self = Self::bare(OperationKind::Zero);
    /// A dense layer at each position.
    pub const CONV1: Self = Self::windowed(OperationKind::Conv, 1);
    /// The same, one half of it gating the other.
    pub const GLU1: Self = Self::windowed(OperationKind::Gated, 1);
    /// A gate for each channel.
    pub const SE: Self = Self::bare(OperationKind::SqueezeExcite);
    /// A dense convolution over 3.
    pub const CONV3: Self = Self::windowed(OperationKind::Conv, 3);
    /// A separable convolution over 5.
    pub const SEP5: Self = Self::windowed(OperationKind::SepConv, 5);
    /// Maximum over 3.
    pub const MAX3: Self = Self::windowed(OperationKind::MaxPool, 3);
    /// Mean over 3.
    pub const AVG3: Self = Self::windowed(OperationKind::AvgPool, 3);
    /// What there was before spaces were data, over either number of axes.
    pub const FIRST: [Self; 6] =
        [Self::CONV3, Self::bare(OperationKind::SepConv), Self::MAX3, Self::AVG3, Self::SKIP, Self::ZERO];

    const fn bare(kind: OperationKind) -> Self {
        Self { kind, kernel: 0, dilation: 1 }
    }

    const fn windowed(kind: OperationKind, kernel: u8) -> Self {
        Self { kind, kernel, dilation: 1 }
    }

    /// What it is.
    pub fn kind(self) -> OperationKind {
        self.kind
    }

    /// This operation with the kernel that it has over `dim`.
    pub fn over(self, dim: Dim) -> Self {
        match (self.kind, self.kernel, dim) {
            (OperationKind::SepConv, 0, Dim::Image) => Self { kernel: 5, ..self },
            (OperationKind::SepConv, 0, Dim::Series) => Self { kernel: 15, ..self },
            _ => self,
        }
    }

    /// Taps along one axis, 1 where there is no window.
    pub fn kernel(self, dim: Dim) -> i64 {
        i64::from(self.over(dim).kernel.max(1))
    }

    /// Distance between taps.
    pub fn dilation(self) -> i64 {
        i64::from(self.dilation)
    }

    /// For people.
    pub fn label(self, dim: Dim) -> String {
        self.over(dim).to_string()
    }

    /// Channels of the bottleneck of a squeeze-excite over `channels`.
    pub fn squeezed(channels: u64) -> u64 {
        (channels / SQUEEZE).max(1)
    }

    /// Weights at `channels`, without biases.
    pub fn weights(self, dim: Dim, channels: u64) -> u64 {
        let taps = self.kernel(dim).unsigned_abs().pow(dim.axes());
        match self.kind {
            OperationKind::Conv => channels * channels * taps,
            OperationKind::SepConv => channels * taps + channels * channels,
            OperationKind::Gated => 2 * channels * channels * taps,
            OperationKind::Attention => channels * taps,
            OperationKind::SqueezeExcite => 2 * channels * Self::squeezed(channels),
            OperationKind::MaxPool | OperationKind::AvgPool | OperationKind::Skip | OperationKind::Zero => 0,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = match (self.kind, self.kernel) {
            (OperationKind::SepConv, 0) => "sep_conv".to_owned(),
            (kind, 0) => kind.name().to_owned(),
            (kind, kernel) => format!("{}{kernel}", kind.name()),
        };
        if self.dilation > 1 {
            name.push_str(&format!("d{}", self.dilation));
        }
        f.pad(&name)
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(name: &str) -> Result<Self, UnknownOperation> {
        // As they were called before kernels had numbers.
        match name {
            "conv" => return Ok(Self::CONV3),
            "sep_conv" => return Ok(Self::bare(OperationKind::SepConv)),
            "max_pool" => return Ok(Self::MAX3),
            "avg_pool" => return Ok(Self::AVG3),
            _ => {}
        }
        let named = |kind: OperationKind| {
            let rest = name.strip_prefix(kind.name())?;
            let Some(least) = kind.kernel_min() else { return rest.is_empty().then_some(Self::bare(kind)) };
            let (kernel, dilation) = rest.split_once('d').unwrap_or((rest, "1"));
            let number = |text: &str, from: u8, to: u8| {
                text.parse()
                    .ok()
                    .filter(|value: &u8| (from..=to).contains(value) && value.to_string() == text)
            };
            let kernel = number(kernel, least, KERNEL_MAX).filter(|kernel| kernel % 2 == 1)?;
            let most = if kind.dilates() { DILATION_MAX } else { 1 };
            Some(Self { kind, kernel, dilation: number(dilation, 1, most)? })
        };
        OperationKind::ALL
            .into_iter()
            .find_map(named)
            .ok_or_else(|| UnknownOperation { name: crate::wire::one_line(name) })
    }
}

impl TryFrom<String> for Operation {
    type Error = UnknownOperation;

    fn try_from(name: String) -> Result<Self, UnknownOperation> {
        name.parse()
    }
}

impl From<Operation> for String {
    fn from(operation: Operation) -> Self {
        operation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_kind_kernel_and_dilation() {
        for name in
            ["conv1", "conv15", "sep5", "sep5d2", "glu3d4", "attend7", "se", "max3", "avg5", "skip", "zero"]
        {
            assert_eq!(name.parse::<Operation>().unwrap().to_string(), name);
        }
        let found: Operation = "sep5d2".parse().unwrap();
        assert_eq!((found.kernel(Dim::Image), found.dilation()), (5, 2));
        for name in [
            "conv", "conv2", "conv33", "conv03", "sep1", "max1", "max3d2", "se3", "skipd2", "sep5d0",
            "sep5d17", "",
        ] {
            let read = name.parse::<Operation>();
            assert_eq!(read.is_ok(), name == "conv", "{name}");
        }
        let error = "conv4".parse::<Operation>().unwrap_err().to_string();
        assert!(error.starts_with("no operation \"conv4\"; allowed are conv,"), "{error}");
    }

    #[test]
    fn names_from_before_kernels_had_numbers_still_read_and_stay_as_they_were() {
        let read = |name: &str| name.parse::<Operation>().unwrap();
        assert_eq!(
            (read("conv"), read("max_pool"), read("avg_pool")),
            (Operation::CONV3, Operation::MAX3, Operation::AVG3)
        );
        assert_eq!(read("sep_conv").to_string(), "sep_conv");
        assert_eq!(read("sep_conv").over(Dim::Image), Operation::SEP5);
        assert_eq!(read("sep_conv").label(Dim::Series), "sep15");
    }

    #[test]
    fn weights_are_counted_by_kind() {
        let weights = |name: &str| name.parse::<Operation>().unwrap().weights(Dim::Image, 8);
        assert_eq!(weights("conv3"), 576);
        assert_eq!(weights("sep5"), 200 + 64);
        assert_eq!(weights("glu1"), 128);
        assert_eq!(weights("attend3"), 72);
        assert_eq!(weights("se"), 32);
        assert_eq!((weights("skip"), weights("max3")), (0, 0));
    }
}
