//! Contrastive prediction: of a batch, each sample is changed twice, and from one of its forms the network tells which of
//! all the others is the second (InfoNCE of van den Oord, Li and Vinyals 2018, over augmented views as in Chen et al.
//! 2020, "A Simple Framework for Contrastive Learning of Visual Representations").

use super::Objective;
use crate::{
    batch::{Augment, Samples},
    genotype::{Dim, Skeleton},
    network::Network,
    params::{Builder, Init, ParamId, Params},
    precision::Precision,
};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Sharpens the choice.
const TEMPERATURE: f64 = 0.2;
/// Values that two forms are compared by.
const PROJECTION: i64 = 64;
/// Forms are further from the sample than in training, or there is nothing to learn.
const STRONGER: f32 = 2.0;
/// Keeps a projection of nothing from dividing by zero.
const NORM_MIN: f64 = 1e-8;

/// Two layers from the means of the last cell's features to what is compared.
#[derive(Debug)]
pub struct Contrastive {
    params: Params,
    first: [ParamId; 2],
    second: [ParamId; 2],
    augment: Augment,
}

impl Contrastive {
    /// For a network of this layout.
    pub fn new(skeleton: &Skeleton, dim: Dim, rng: &mut ChaCha8Rng) -> Self {
        let mut builder = Builder::default();
        let mut layer = |name: &str, from: i64| {
            let shape = [PROJECTION, from];
            let weight = builder.add(format!("{name}.weight"), &shape, Init::he(&shape), true);
            [weight, builder.add(format!("{name}.bias"), &[PROJECTION], Init::Constant(0.0), false)]
        };
        let (first, second) = (layer("first", skeleton.features), layer("second", PROJECTION));
        let augment = Augment::for_dim(dim).stronger(STRONGER);
        Self { params: builder.build(rng, true), first, second, augment }
    }

    /// `[N, PROJECTION]`, each row of length one.
    fn project(&self, nodes: &[Tensor]) -> Tensor {
        let p = &self.params;
        let mean = |x: &Tensor| x.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        let features = Tensor::cat(&nodes.iter().map(mean).collect::<Vec<_>>(), 1);
        let hidden = features.linear(&p[self.first[0]], Some(&p[self.first[1]])).relu();
        let out = hidden.linear(&p[self.second[0]], Some(&p[self.second[1]]));
        &out / out.norm_scalaropt_dim(2, [1i64].as_slice(), true).clamp_min(NORM_MIN)
    }
}

impl Objective for Contrastive {
    fn head(&self) -> &Params {
        &self.params
    }

    fn loss(&self, net: &Network, samples: &Samples, chosen: &[i64], rng: &mut ChaCha8Rng) -> Tensor {
        let mut form = || {
            let (x, _) = samples.augmented(chosen, &self.augment, rng);
            let form = Precision::of(x.device()).compute(|| self.project(&net.features(&x, true)));
            form.to_kind(Kind::Float)
        };
        let (one, other) = (form(), form());
        let alike = one.matmul(&other.transpose(0, 1)) / TEMPERATURE;
        let right = Tensor::arange(chosen.len() as i64, (Kind::Int64, one.device()));
        let choose =
            |rows: &Tensor| rows.cross_entropy_loss::<&Tensor>(&right, None, tch::Reduction::Mean, -100, 0.0);
        (choose(&alike) + choose(&alike.transpose(0, 1))) / 2.0
    }
}
