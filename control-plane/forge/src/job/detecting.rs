//! What a job does first where anomalies are to be found: it holds normal samples back and makes anomalies of the others.

use super::Error;
use crate::{
    anomaly::{self, ANOMALY},
    batch::Samples,
    data::{Dataset, NORMAL_MIN, Split},
};
use shared::{
    job::{JobSpec, Pretext},
    manifest::Task,
};

/// Streams of made anomalies: for training, and for testing where the set has none.
const OF_TRAINING: u64 = 0;
const OF_TEST: u64 = 1;

/// What is known of the samples of such a job.
#[derive(Debug)]
pub(super) struct Detecting {
    /// Normal samples that draw the line.
    pub(super) held: Split,
    /// Normal samples that are trained on.
    pub(super) normal: usize,
    /// Test samples that are anomalies made of normal ones, since there are no others.
    made_to_test: usize,
}

/// Brings `set` into the form of a classification; nothing where the task is another one.
pub(super) fn prepare(set: &mut Dataset, spec: &JobSpec) -> Result<Option<Detecting>, Error> {
    let shape = set.schema.shape.clone();
    if spec.budget.pretext == Some(Pretext::Masked) && matches!(shape[..], [_, 1]) {
        let message =
            "budget.pretext masked hides stretches of a sample, a row of a table has none: take contrastive";
        return Err(Error::Input(message.to_owned()));
    }
    if set.schema.task != Task::AnomalyDetection {
        return Ok(None);
    }
    if set.train.len() < NORMAL_MIN {
        return Err(Error::Input(format!(
            "budget.labelled_percent leaves {} normal samples, at least {NORMAL_MIN} are needed: raise it",
            set.train.len()
        )));
    }
    let held = anomaly::hold_back(&mut set.train, &shape, spec.seed);
    let normal = set.train.len();
    set.train = anomaly::with_made(&set.train, &shape, spec.seed, OF_TRAINING);
    let mut made_to_test = 0;
    if !set.test.labels.contains(&ANOMALY) {
        made_to_test = set.test.len();
        set.test = anomaly::with_made(&set.test, &shape, spec.seed, OF_TEST);
    }
    Ok(Some(Detecting { held, normal, made_to_test }))
}

impl Detecting {
    /// `samples` of the training split, with other anomalies at each step of a training.
    pub(super) fn samples(&self, samples: Samples, set: &Dataset) -> Samples {
        samples.made_of(self.normal, &set.train, &set.schema.shape)
    }

    /// For people.
    pub(super) fn remark(&self) -> Option<String> {
        (self.made_to_test > 0).then(|| {
            format!(
                "the set holds no anomaly: AUROC and what is found are measured on {} anomalies made of test samples",
                self.made_to_test
            )
        })
    }
}
