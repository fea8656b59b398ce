//! Training behind a step of the compression: the network learns from the labels and from the uncompressed network.

use super::{Trainable, judge::hard_loss};
use crate::{
    batch::{Augment, Batches, Order, Samples},
    checkpoint, distil,
    graph::Graph,
    optim::{self, Sgd},
    seeds::{self, Purpose},
    train::{LABEL_SMOOTHING, MOMENTUM, batch_of},
};
use tch::{Kind, Tensor, no_grad};

/// A folded network has no BatchNorm that would keep its activations in bounds: a step is kept short.
const GRADIENT_NORM_MAX: f64 = 1.0;
/// The average reaches back over this share of the steps.
const AVERAGE_SHARE: f64 = 0.1;
/// Share of the steps in which the rate rises.
const WARM_SHARE: f64 = 0.1;

/// How to train back what a step cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Steps.
    pub steps: u64,
    /// Highest rate.
    pub rate: f64,
    /// How samples are changed.
    pub augment: Augment,
}

/// Samples to learn from, and the network whose answers are learned too.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// Those of the training split.
    pub samples: &'a Samples,
    /// The ones that may be used.
    pub used: &'a [i64],
    /// The uncompressed network.
    pub teacher: &'a Trainable,
}

impl Answers<'_> {
    /// A batch of `net`'s losses: its step among the batches of `seed`.
    fn loss(&self, net: &Trainable, indices: &[i64], augment: &Augment, seed: u64, step: u64) -> Tensor {
        let chosen: Vec<i64> =
            indices.iter().filter_map(|at| self.used.get(usize::try_from(*at).ok()?).copied()).collect();
        let mut rng = seeds::stream(seed, Purpose::RetrainAugment, step);
        let (x, labels) = self.samples.augmented(&chosen, augment, &mut rng);
        let (hard, logits) = hard_loss(net, &x, &labels, LABEL_SMOOTHING, self.samples.weights());
        let softened = no_grad(|| (self.teacher.logits(&x) / distil::TEMPERATURE).softmax(1, Kind::Float));
        distil::blend(&softened, &logits, hard)
    }

    /// The losses of `net` on the first `count` batches, one by one, samples as they are.
    pub fn losses<'s>(
        &'s self,
        net: &'s Trainable,
        seed: u64,
        count: u64,
    ) -> impl Iterator<Item = Tensor> + 's {
        let mut batches = self.batches(seed);
        (0..count).map(move |step| {
            let chosen: Vec<i64> = batches.get(step).to_vec();
            let chosen: Vec<i64> =
                chosen.iter().filter_map(|at| self.used.get(usize::try_from(*at).ok()?).copied()).collect();
            let (x, labels) = self.samples.batch(&chosen);
            hard_loss(net, &x, &labels, 0.0, self.samples.weights()).0
        })
    }

    fn batches(&self, seed: u64) -> Batches {
        Batches::new(Order::new(seed, Purpose::RetrainOrder, self.used.len(), batch_of(self.used.len())))
    }

    /// Steps of one pass over the samples.
    pub fn steps_per_epoch(&self) -> u64 {
        self.batches(0).steps_per_epoch()
    }
}

/// A training in progress.
#[derive(Debug)]
pub struct Retraining<'a> {
    answers: Answers<'a>,
    net: Trainable,
    sgd: Sgd,
    average: Tensor,
    batches: Batches,
    plan: Plan,
    seed: u64,
    step: u64,
}

impl<'a> Retraining<'a> {
    /// Trains `net` on, from the weights that it has.
    pub fn new(net: Trainable, answers: Answers<'a>, plan: Plan, seed: u64) -> Self {
        Self {
            sgd: Sgd::new(net.params.len(), MOMENTUM, 0.0),
            average: net.params.flat().copy(),
            batches: answers.batches(seed),
            answers,
            net,
            plan,
            seed,
            step: 0,
        }
    }

    /// Steps done and steps in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.step, self.plan.steps)
    }

    /// One step; gives its loss.
    pub fn step(&mut self) -> f64 {
        let indices = self.batches.get(self.step).to_vec();
        let loss = self.answers.loss(&self.net, &indices, &self.plan.augment, self.seed, self.step);
        let gradient = optim::clip(&self.net.params.gradients(&loss), GRADIENT_NORM_MAX);
        let rate = optim::one_cycle(self.plan.rate, self.step, self.plan.steps, WARM_SHARE);
        let mut flat = self.net.params.flat();
        self.sgd.step(&mut flat, &gradient, self.net.params.decay(), rate);
        self.step += 1;
        let window = (self.plan.steps as f64 * AVERAGE_SHARE).max(4.0);
        let newest = (1.0 / self.step as f64).max(1.0 / window);
        no_grad(|| {
            let _ = self.average.lerp_(&flat, newest);
        });
        loss.double_value(&[])
    }

    /// The network with the average weights.
    pub fn finish(mut self) -> Trainable {
        self.net.params.set_flat(&self.average);
        self.net
    }

    /// The graph that is trained, with the weights with which it began.
    pub fn graph(&self) -> &Graph {
        self.net.graph()
    }

    /// What a checkpoint needs beside [`Self::graph`].
    pub fn save(&self) -> (u64, [(&'static str, Tensor); 3]) {
        let tensors = [
            ("values", self.net.params.flat()),
            ("velocity", self.sgd.velocity.shallow_clone()),
            ("average", self.average.shallow_clone()),
        ];
        (self.step, tensors)
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A sentence, if it is not one of this training.
    pub fn restore(&mut self, step: u64, tensor: impl FnMut(&str) -> Option<Tensor>) -> Result<(), String> {
        if step > self.plan.steps {
            return Err("the checkpoint is of another training".to_owned());
        }
        checkpoint::copy_back(&self.save().1, tensor)?;
        self.step = step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compress::{
            fake::Fake,
            prune::{Scorer, prune},
            testing::{board, stripes, trained_graph},
        },
        genotype::Dim,
        onnx::tests::ort,
        params::to_vec,
        quantise::{Calibrator, look},
    };

    fn plan(steps: u64) -> Plan {
        assert_ne!(Augment::NONE, Augment::for_dim(Dim::Image));
        Plan { steps, rate: 0.05, augment: Augment::NONE }
    }

    fn right(net: &Trainable, samples: &Samples) -> f64 {
        let all: Vec<i64> = (0..samples.len() as i64).collect();
        let (x, labels) = samples.batch(&all);
        let found = net.probabilities(&x).argmax(1, false).eq_tensor(&labels);
        found.sum(Kind::Int64).int64_value(&[]) as f64 / samples.len() as f64
    }

    #[test]
    fn a_network_that_was_cut_in_half_learns_again_what_it_knew_and_a_checkpoint_goes_on_alike() {
        let samples = Samples::new(&stripes(96, 0.6, 1), &[1, 8, 8]);
        let unseen = Samples::new(&stripes(96, 0.6, 2), &[1, 8, 8]);
        let used: Vec<i64> = (0..96).collect();
        let graph = trained_graph();
        let teacher = Trainable::new(&graph);
        assert!(right(&teacher, &unseen) > 0.9, "{}", right(&teacher, &unseen));
        let answers = Answers { samples: &samples, used: &used, teacher: &teacher };
        let mut scorer = Scorer::new(&teacher);
        answers.losses(&teacher, 3, 4).for_each(|loss| scorer.add(&loss));
        let cut = prune(&graph, &scorer.finish(), 0.4, &board()).unwrap().unwrap();
        assert!(cut.macs() as f64 <= graph.macs() as f64 * 0.4);
        let mut training = Retraining::new(Trainable::new(&cut), answers, plan(30), 2);
        let mut again = None;
        while training.progress().0 < 30 {
            if training.progress().0 == 11 {
                let (step, tensors) = training.save();
                again = Some((step, tensors.map(|(name, tensor)| (name, tensor.copy()))));
            }
            training.step();
        }
        let (step, tensors) = again.unwrap();
        let mut resumed = Retraining::new(Trainable::new(&cut), answers, plan(30), 2);
        let saved = |name: &str| Some(tensors.iter().find(|(known, _)| *known == name)?.1.copy());
        resumed.restore(step, saved).unwrap();
        while resumed.progress().0 < 30 {
            resumed.step();
        }
        let (found, resumed) = (training.finish(), resumed.finish());
        assert_eq!(to_vec(&found.params.flat()), to_vec(&resumed.params.flat()));
        assert!(right(&found, &unseen) > 0.9, "{}", right(&found, &unseen));
        assert_eq!(found.to_graph().unwrap().macs(), cut.macs());
    }

    #[test]
    fn training_with_rounding_brings_back_what_coarse_weights_cost() {
        let Some(ort) = ort() else { return };
        let split = stripes(96, 0.6, 1);
        let samples = Samples::new(&split, &[1, 8, 8]);
        let used: Vec<i64> = (0..96).collect();
        let graph = trained_graph();
        let teacher = Trainable::new(&graph);
        let answers = Answers { samples: &samples, used: &used, teacher: &teacher };
        // Ranges that clip most of what there is stand in for a network that takes 8 bits badly.
        let ranges: Vec<(f32, f32)> = look(&graph, &split.samples, &ort)
            .unwrap()
            .ranges(Calibrator::MinMax)
            .iter()
            .map(|(low, high)| (low * 0.2, high * 0.2))
            .collect();
        let rounded = || Trainable::rounded(&graph, Fake::new(&graph, &ranges, true).unwrap());
        let all: Vec<f64> = answers.losses(&rounded(), 3, 4).map(|loss| loss.double_value(&[])).collect();
        let mut training = Retraining::new(rounded(), answers, plan(40), 2);
        while training.progress().0 < 40 {
            training.step();
        }
        let net = training.finish();
        let after: Vec<f64> = answers.losses(&net, 3, 4).map(|loss| loss.double_value(&[])).collect();
        assert!(after.iter().sum::<f64>() < all.iter().sum::<f64>(), "{after:?} against {all:?}");
        assert!(net.fake().is_some());
    }
}
