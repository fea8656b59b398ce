//! What the devices of a board are asked to measure: the operations of the forge's networks at the sizes that its
//! networks have, some of them several times in a row so that what a node costs shows beside what an inference costs,
//! and small networks.

use shared::profile::{Step, Workload};

/// Where operations of images are measured: channels, height and width.
const IMAGE_PLACES: [(u32, u32); 5] = [(8, 28), (16, 14), (32, 16), (32, 7), (64, 4)];
/// Where operations of series are measured: channels and length.
const SERIES_PLACES: [(u32, u32); 5] = [(8, 500), (16, 250), (32, 125), (16, 24), (64, 12)];
/// Networks: input channels, longest axis, channels of the first stage, cells.
const IMAGE_NETWORKS: [(u32, u32, u32, u32); 4] =
    [(1, 28, 8, 2), (1, 28, 16, 3), (3, 32, 16, 3), (3, 32, 24, 2)];
const SERIES_NETWORKS: [(u32, u32, u32, u32); 4] =
    [(1, 24, 16, 2), (1, 150, 16, 3), (3, 300, 24, 3), (6, 500, 16, 2)];
/// Times that an operation is repeated.
const REPEATED: usize = 4;

/// Axes and windows of the forge's networks over images, or over series.
#[derive(Clone, Copy)]
struct Kind {
    image: bool,
    stem_kernel: u32,
    separable_kernel: u32,
}

const KINDS: [Kind; 2] = [
    Kind { image: true, stem_kernel: 3, separable_kernel: 5 },
    Kind { image: false, stem_kernel: 9, separable_kernel: 15 },
];

/// The workloads, always the same.
pub fn workloads() -> Vec<Workload> {
    let mut all = Vec::new();
    for kind in KINDS {
        let places = if kind.image { IMAGE_PLACES } else { SERIES_PLACES };
        for (index, (channels, axis)) in places.into_iter().enumerate() {
            let input = kind.shape(channels, axis);
            let mut add = |steps: Vec<Step>| all.push(Workload { input: input.clone(), steps });
            for operation in kind.operations(channels) {
                add(operation);
            }
            if index % 2 == 0 {
                kind.repeated(channels).into_iter().for_each(&mut add);
            }
        }
        let stem = conv(16, kind.stem_kernel, 2, 1);
        all.push(Workload { input: kind.shape(1, if kind.image { 28 } else { 200 }), steps: vec![stem] });
        let networks = if kind.image { IMAGE_NETWORKS } else { SERIES_NETWORKS };
        all.extend(networks.into_iter().map(|network| kind.network(network)));
    }
    all
}

impl Kind {
    fn shape(self, channels: u32, axis: u32) -> Vec<u32> {
        if self.image { vec![channels, axis, axis] } else { vec![channels, axis] }
    }

    fn separable(self, channels: u32) -> Vec<Step> {
        let depthwise =
            Step::Conv { channels, kernel: self.separable_kernel, stride: 1, groups: channels, relu: false };
        vec![depthwise, conv(channels, 1, 1, 1)]
    }

    /// Those of a cell, its adapters, and the head. What is no convolution comes behind one, as in a network: runtimes
    /// keep values in another layout there.
    fn operations(self, channels: u32) -> Vec<Vec<Step>> {
        let pointwise = conv(channels, 1, 1, 1);
        vec![
            vec![conv(channels, 3, 1, 1)],
            vec![conv(2 * channels, 3, 2, 1)],
            vec![pointwise],
            self.separable(channels),
            vec![pointwise, MAX_POOL],
            vec![pointwise, AVERAGE_POOL],
            vec![pointwise, pointwise, Step::Add],
            vec![pointwise, pointwise, Step::Concat],
            vec![pointwise, Step::GlobalAverage, Step::Linear { features: 10 }],
        ]
    }

    /// Fewer steps than a network has.
    fn repeated(self, channels: u32) -> Vec<Vec<Step>> {
        let pointwise = conv(channels, 1, 1, 1);
        let pools = std::iter::once(pointwise).chain([MAX_POOL; REPEATED]).collect();
        vec![vec![conv(channels, 3, 1, 1); REPEATED], pools, vec![pointwise; REPEATED]]
    }

    /// A stem, cells of two nodes that double the channels and halve the resolution, and the head.
    fn network(self, (input, axis, channels, cells): (u32, u32, u32, u32)) -> Workload {
        let mut steps = vec![conv(channels, self.stem_kernel, if axis >= 28 { 2 } else { 1 }, 1)];
        for cell in 0..cells {
            let width = channels << cell;
            let adapter = if cell == 0 { conv(width, 1, 1, 1) } else { conv(width, 3, 2, 1) };
            steps.push(adapter);
            steps.push(without_relu(conv(width, 3, 1, 1)));
            steps.extend(self.separable(width).into_iter().map(without_relu));
            steps.push(Step::Add);
            steps.push(if cell % 2 == 0 { MAX_POOL } else { AVERAGE_POOL });
            steps.push(Step::Add);
            steps.push(Step::Concat);
        }
        steps.extend([Step::GlobalAverage, Step::Linear { features: 10 }]);
        Workload { input: self.shape(input, axis), steps }
    }
}

const MAX_POOL: Step = Step::MaxPool { kernel: 3, stride: 1 };
const AVERAGE_POOL: Step = Step::AveragePool { kernel: 3, stride: 1 };

fn conv(channels: u32, kernel: u32, stride: u32, groups: u32) -> Step {
    Step::Conv { channels, kernel, stride, groups, relu: true }
}

fn without_relu(step: Step) -> Step {
    match step {
        Step::Conv { channels, kernel, stride, groups, .. } => {
            Step::Conv { channels, kernel, stride, groups, relu: false }
        }
        other => other,
    }
}
