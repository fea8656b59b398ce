//! A small network described by numbers alone, from which a device makes a model itself and times it.

use crate::{latency::Work, limits};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// An input and what is done to it, step by step. Each step reads what the step before gave; [`Step::Add`] and
/// [`Step::Concat`] read an earlier value too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Workload {
    /// Axes of one sample: `[C, L]` or `[C, H, W]`.
    pub input: Vec<u32>,
    pub steps: Vec<Step>,
}

/// One operation. Kernels are odd, the same along each spatial axis, and padded so that a stride of one keeps the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "WorkloadStep"))]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Step {
    /// A convolution with bias. As many groups as channels make it depthwise.
    Conv {
        channels: u32,
        kernel: u32,
        stride: u32,
        groups: u32,
        relu: bool,
    },
    MaxPool {
        kernel: u32,
        stride: u32,
    },
    /// Padding counts in the mean.
    AveragePool {
        kernel: u32,
        stride: u32,
    },
    /// Adds the newest earlier value of the same shape; a ReLU follows.
    Add,
    /// Joins the newest earlier value with the same spatial axes, along the channels.
    Concat,
    /// The mean over all spatial axes; gives a vector.
    GlobalAverage,
    /// A fully connected layer over a vector, with bias.
    Linear {
        features: u32,
    },
}

/// One step with the values that it reads; value 0 is the input, value `n` what step `n - 1` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub step: Step,
    pub reads: Vec<usize>,
    /// Axes of what it reads first.
    pub input: Vec<u32>,
    /// Axes of what it gives.
    pub output: Vec<u32>,
}

impl Workload {
    /// Every step with its shapes. The workload keeps the limits of [`limits`] then.
    ///
    /// # Errors
    /// A sentence that names the step, the number, and what is allowed.
    pub fn layout(&self) -> Result<Vec<Node>, String> {
        if !matches!(self.input.len(), 2 | 3) {
            return Err(format!("the input has {} axes, allowed are 2 and 3", self.input.len()));
        }
        check_shape(&self.input).map_err(|reason| format!("the input: {reason}"))?;
        if self.steps.is_empty() || self.steps.len() > limits::PROFILE_STEPS_MAX {
            return Err(format!(
                "{} steps, allowed are 1 to {}",
                self.steps.len(),
                limits::PROFILE_STEPS_MAX
            ));
        }
        let mut values = vec![self.input.clone()];
        let mut nodes = Vec::with_capacity(self.steps.len());
        let (mut weights, mut macs) = (0u64, 0u64);
        for (index, step) in self.steps.iter().enumerate() {
            let node = place(*step, &values).map_err(|reason| format!("step {index}: {reason}"))?;
            weights = weights.saturating_add(node.weights());
            macs = macs.saturating_add(node.macs());
            values.push(node.output.clone());
            nodes.push(node);
        }
        for (what, count, most) in [
            ("weights", weights, limits::PROFILE_WEIGHTS_MAX),
            ("multiply-accumulates", macs, limits::PROFILE_MACS_MAX),
        ] {
            if count > most {
                return Err(format!("{count} {what}, at most {most}"));
            }
        }
        Ok(nodes)
    }

    /// What a prediction of its latency needs to know.
    ///
    /// # Errors
    /// As of [`Workload::layout`].
    pub fn features(&self) -> Result<crate::latency::Features, String> {
        let nodes = self.layout()?;
        let output = nodes.last().map_or(0, |node| elements(&node.output));
        let boundary = elements(&self.input) + output;
        Ok(crate::latency::Features::of(boundary, nodes.iter().map(Node::work)))
    }

    /// Is it a network rather than an operation or two?
    pub fn is_network(&self) -> bool {
        self.steps.len() >= NETWORK_STEPS_MIN
    }
}

/// Steps from which on a workload stands for a whole network.
const NETWORK_STEPS_MIN: usize = 8;

impl Node {
    /// Weights, without biases.
    pub fn weights(&self) -> u64 {
        match self.step {
            Step::Conv { channels, kernel, groups, .. } => {
                u64::from(channels)
                    * u64::from(channels_of(&self.input) / groups.max(1))
                    * taps(kernel, &self.input)
            }
            Step::Linear { features } => u64::from(features) * u64::from(channels_of(&self.input)),
            Step::MaxPool { .. }
            | Step::AveragePool { .. }
            | Step::Add
            | Step::Concat
            | Step::GlobalAverage => 0,
        }
    }

    /// Multiply-accumulates of one sample.
    pub fn macs(&self) -> u64 {
        self.weights() * self.output.iter().skip(1).map(|axis| u64::from(*axis)).product::<u64>()
    }

    /// What it costs, in what is counted.
    pub fn work(&self) -> Work {
        let (input, output) = (elements(&self.input), elements(&self.output));
        let spatial = self.output.iter().skip(1).map(|axis| u64::from(*axis)).product();
        match self.step {
            Step::Conv { channels, kernel, groups, .. } => Work::conv(
                [channels_of(&self.input), channels].map(u64::from),
                taps(kernel, &self.input),
                u64::from(groups),
                input,
                spatial,
            ),
            Step::MaxPool { kernel, .. } => {
                Work::max_pool(channels_of(&self.input).into(), taps(kernel, &self.input), input, output)
            }
            Step::AveragePool { kernel, .. } => {
                Work::average_pool(channels_of(&self.input).into(), taps(kernel, &self.input), input, output)
            }
            Step::Add => Work::other(2 * output, output),
            Step::Concat => Work::other(output, output),
            Step::GlobalAverage => Work::other(input, output),
            Step::Linear { .. } => Work::linear(input, output),
        }
    }
}

/// Where a step finds what it reads among the values so far, and what comes of it.
fn place(step: Step, values: &[Vec<u32>]) -> Result<Node, String> {
    let last = values.len().saturating_sub(1);
    let input = values.get(last).cloned().unwrap_or_default();
    let spatial = input.get(1..).unwrap_or_default();
    let has_space = !spatial.is_empty();
    let earlier = |fits: &dyn Fn(&[u32]) -> bool| values.iter().take(last).rposition(|value| fits(value));
    let windowed = |channels: u32, kernel: u32, stride: u32| -> Result<Vec<u32>, String> {
        if !has_space {
            return Err("a window needs spatial axes".to_owned());
        }
        within("kernel", kernel, 1, limits::PROFILE_KERNEL_MAX)?;
        within("stride", stride, 1, limits::PROFILE_STRIDE_MAX)?;
        if kernel.is_multiple_of(2) {
            return Err(format!("kernel is {kernel}, an odd number is needed"));
        }
        Ok(std::iter::once(channels).chain(spatial.iter().map(|axis| axis.div_ceil(stride))).collect())
    };
    let mut reads = vec![last];
    let output = match step {
        Step::Conv { channels, kernel, stride, groups, .. } => {
            within("channels", channels, 1, limits::PROFILE_CHANNELS_MAX)?;
            within("groups", groups, 1, limits::PROFILE_CHANNELS_MAX)?;
            if !channels.is_multiple_of(groups) || !channels_of(&input).is_multiple_of(groups) {
                return Err(format!(
                    "{groups} groups do not divide {} input and {channels} output channels",
                    channels_of(&input)
                ));
            }
            windowed(channels, kernel, stride)?
        }
        Step::MaxPool { kernel, stride } | Step::AveragePool { kernel, stride } => {
            windowed(channels_of(&input), kernel, stride)?
        }
        Step::Add => {
            reads.push(earlier(&|value| value == input).ok_or("nothing before it has the same shape")?);
            input.clone()
        }
        Step::Concat => {
            let fits = |value: &[u32]| has_space && value.get(1..) == Some(spatial);
            let at = earlier(&fits).ok_or("nothing before it has the same spatial axes")?;
            reads.push(at);
            let other = values.get(at).map_or(0, |value| channels_of(value));
            std::iter::once(channels_of(&input) + other).chain(spatial.iter().copied()).collect()
        }
        Step::GlobalAverage if has_space => vec![channels_of(&input)],
        Step::GlobalAverage => return Err("there are no spatial axes to average over".to_owned()),
        Step::Linear { features } => {
            within("features", features, 1, limits::PROFILE_CHANNELS_MAX)?;
            if has_space {
                return Err("a fully connected layer needs a vector".to_owned());
            }
            vec![features]
        }
    };
    check_shape(&output)?;
    Ok(Node { step, reads, input, output })
}

fn within(what: &str, value: u32, low: u32, high: u32) -> Result<(), String> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(format!("{what} is {value}, allowed are {low} to {high}"))
    }
}

fn check_shape(axes: &[u32]) -> Result<(), String> {
    let (channels, spatial) = axes.split_first().ok_or("no axes")?;
    within("channels", *channels, 1, limits::PROFILE_CHANNELS_MAX)?;
    for axis in spatial {
        within("an axis", *axis, 1, limits::PROFILE_AXIS_MAX)?;
    }
    let count = elements(axes);
    if count > limits::PROFILE_ELEMENTS_MAX {
        return Err(format!("{count} elements, at most {}", limits::PROFILE_ELEMENTS_MAX));
    }
    Ok(())
}

fn channels_of(axes: &[u32]) -> u32 {
    axes.first().copied().unwrap_or(0)
}

fn elements(axes: &[u32]) -> u64 {
    axes.iter().fold(1, |product, axis| product.saturating_mul(u64::from(*axis)))
}

/// Taps of a kernel over all spatial axes of `input`.
fn taps(kernel: u32, input: &[u32]) -> u64 {
    input.iter().skip(1).map(|_| u64::from(kernel)).product()
}

impl fmt::Display for Workload {
    /// For people, as in `16x14x14: conv3 16, add`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, axis) in self.input.iter().enumerate() {
            write!(f, "{}{axis}", if index == 0 { "" } else { "x" })?;
        }
        f.write_str(":")?;
        if self.is_network() {
            return write!(f, " a network of {} steps", self.steps.len());
        }
        for (index, step) in self.steps.iter().enumerate() {
            f.write_str(if index == 0 { " " } else { ", " })?;
            step.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strided = |f: &mut fmt::Formatter<'_>, stride: &u32| match stride {
            1 => Ok(()),
            stride => write!(f, "/{stride}"),
        };
        match self {
            Self::Conv { channels, kernel, stride, groups, .. } => {
                f.write_str(if *groups > 1 { "depthwise" } else { "conv" })?;
                write!(f, "{kernel}")?;
                strided(f, stride)?;
                write!(f, " {channels}")
            }
            Self::MaxPool { kernel, stride } => {
                write!(f, "max{kernel}")?;
                strided(f, stride)
            }
            Self::AveragePool { kernel, stride } => {
                write!(f, "average{kernel}")?;
                strided(f, stride)
            }
            Self::Add => f.write_str("add"),
            Self::Concat => f.write_str("concat"),
            Self::GlobalAverage => f.write_str("global average"),
            Self::Linear { features } => {
                f.write_str("linear")?;
                f.write_char(' ')?;
                write!(f, "{features}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(channels: u32, kernel: u32, stride: u32, groups: u32) -> Step {
        Step::Conv { channels, kernel, stride, groups, relu: true }
    }

    fn workload(input: &[u32], steps: &[Step]) -> Workload {
        Workload { input: input.to_vec(), steps: steps.to_vec() }
    }

    #[test]
    fn shapes_follow_the_steps_and_work_is_counted() {
        let steps = [
            conv(16, 3, 2, 1),
            conv(16, 5, 1, 16),
            conv(16, 1, 1, 1),
            Step::Add,
            Step::Concat,
            Step::GlobalAverage,
            Step::Linear { features: 10 },
        ];
        let nodes = workload(&[1, 28, 28], &steps).layout().unwrap();
        let outputs: Vec<&[u32]> = nodes.iter().map(|node| node.output.as_slice()).collect();
        let image: &[u32] = &[16, 14, 14];
        assert_eq!(outputs, [image, image, image, image, &[32, 14, 14], &[32], &[10]]);
        assert_eq!(nodes.iter().map(Node::weights).collect::<Vec<_>>(), [144, 400, 256, 0, 0, 0, 320]);
        assert_eq!(nodes[3].reads, [3, 2]);
        assert_eq!(nodes[1].macs(), 400 * 196);
        let series = workload(&[3, 65], &[conv(8, 9, 2, 1), Step::MaxPool { kernel: 3, stride: 1 }]);
        assert_eq!(series.layout().unwrap()[1].output, [8, 33]);
        assert_eq!(series.to_string(), "3x65: conv9/2 8, max3");
    }

    #[test]
    fn what_would_cost_a_device_too_much_or_makes_no_sense_is_refused_in_words() {
        let many = vec![conv(8, 1, 1, 1); 65];
        for (input, steps, said) in [
            (&[1, 28, 28][..], &[][..], "0 steps"),
            (&[8, 4, 4], &many, "65 steps"),
            (&[8], &[Step::Add], "1 axes"),
            (&[0, 28, 28], &[Step::Add], "channels is 0"),
            (&[1, 4_000_000_000, 2], &[Step::Add], "an axis is 4000000000"),
            (&[1024, 16_384], &[Step::Add], "16777216 elements"),
            (&[8, 28, 28], &[conv(4_000_000_000, 3, 1, 1)], "step 0: channels is 4000000000"),
            (&[8, 28, 28], &[conv(8, 33, 1, 1)], "kernel is 33"),
            (&[8, 28, 28], &[conv(8, 2, 1, 1)], "kernel is 2, an odd"),
            (&[8, 28, 28], &[conv(8, 3, 0, 1)], "stride is 0"),
            (&[8, 28, 28], &[conv(8, 3, 1, 0)], "groups is 0"),
            (&[8, 28, 28], &[conv(8, 3, 1, 3)], "3 groups do not divide"),
            (&[1024, 16, 16], &[conv(1024, 3, 1, 1)], "9437184 weights"),
            (&[256, 32, 32], &[conv(256, 3, 1, 1)], "multiply-accumulates"),
            (&[8, 28, 28], &[Step::Add], "nothing before it"),
            (&[8, 28, 28], &[Step::Linear { features: 4 }], "needs a vector"),
            (&[8, 28, 28], &[Step::GlobalAverage, Step::Concat], "nothing before it"),
            (&[8, 28, 28], &[Step::GlobalAverage, Step::GlobalAverage], "no spatial axes"),
        ] {
            let reason = workload(input, steps).layout().unwrap_err();
            assert!(reason.contains(said), "{reason:?} does not say {said:?}");
        }
    }
}
