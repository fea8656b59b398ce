//! From a network of floats to the small form of it that keeps the bound: the cheapest way first.

use super::{AWARE_RATE, AWARE_SHARE, Driver, Error, Journal, Run, World, seed_of, share_of};
use crate::{
    compress::{
        self, Plan, Trainable,
        correct::{bias_corrected, equalised},
        fake::Fake,
        rounding::Rounding,
        sequence::Ending,
    },
    finish::{CALIBRATION_SAMPLES, Compressed},
    graph::Graph,
    import::saturates,
    job::Clock,
    onnx,
    quantise::{self, Calibrator, Encoding, Seen, look, quantise},
};
use shared::job::{ModelForm, TensorReport};

/// Calibration samples over which rounding is learned.
const ROUNDING_SAMPLES: usize = 256;

/// One form with what it is worth.
struct Form {
    graph: Graph,
    onnx: Vec<u8>,
    form: ModelForm,
    way: String,
    tensors: Vec<TensorReport>,
    /// Right answers on what is held back, 0 to 1.
    held: f64,
}

/// The forms of one network.
struct Forms<'w, 'a> {
    world: &'w World<'a>,
    graph: Graph,
    calibration: Vec<f32>,
    reduce_range: bool,
    /// The most accurate so far.
    best: Option<Form>,
    /// The rule of ranges of the most accurate form by calibration alone.
    calibrator: Calibrator,
}

impl Driver<'_, '_> {
    /// The first small form of `graph` that keeps the bound; without one the network is refused, or, where its structure is
    /// that of the training, takes the form that costs least.
    pub(super) fn small_form(
        &mut self,
        index: usize,
        graph: Graph,
        structures: Vec<(String, Graph)>,
        world: &World<'_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<Run, Error> {
        let each = graph.input_shape().elements();
        let some = world.parts.used.iter().take(CALIBRATION_SAMPLES);
        let mut calibration = Vec::new();
        for sample in some.filter_map(|at| usize::try_from(*at).ok()) {
            self.set.train.values(sample, &[each], &mut calibration);
        }
        let reduce_range = saturates(&self.spec.board);
        let calibrator = Calibrator::MinMax;
        let mut forms = Forms { world, graph, calibration, reduce_range, best: None, calibrator };
        if world.menu.endings.first() != Some(&Ending::PostTraining) {
            forms.calibrator = forms.most_accurate_rule()?;
        }
        let mut enough = false;
        for ending in world.menu.endings {
            enough = match ending {
                Ending::PostTraining => forms.by_calibration()?,
                Ending::Corrected => forms.corrected()?,
                Ending::Rounded => self.rounded(index, &mut forms, journal, clock)?,
                Ending::Aware => self.aware(index, &mut forms, journal, clock)?,
            };
            if enough {
                break;
            }
            if let Some(best) = &forms.best {
                let told = format!(
                    "INT8, {}: {:.4} right, {:.4} are needed",
                    best.way,
                    best.held,
                    world.bound.least()
                );
                self.say(world, journal, told);
            }
        }
        let mut remarks = Vec::new();
        if !enough {
            let found = forms.best.as_ref().map_or(0.0, |best| best.held);
            let least = world.bound.least();
            if !structures.is_empty() {
                return Ok(Run::Refused(format!("{found:.4} right at best as INT8, {least:.4} are needed")));
            }
            let int8 = match &forms.best {
                Some(_) => format!(
                    "INT8 answers {found:.4} of the samples held back right where {least:.4} are needed"
                ),
                None => "INT8 was not asked for".to_owned(),
            };
            // One way to integers that was asked for by name stays, and says what it costs.
            let named = world.menu.endings.len() == 1;
            match forms.halved(self.spec.board.limits.weight_bytes_max)? {
                _ if named => remarks.push(int8),
                Ok(half) => {
                    forms.best = Some(half);
                    remarks.push(format!(
                        "{int8}: weights are kept as 16-bit floats, at twice the size and in f32 arithmetic"
                    ));
                }
                Err(why) => remarks.push(format!("{int8}, and FP16 {why}")),
            }
            if forms.best.is_none() {
                forms.by_calibration()?;
            }
        }
        let Some(best) = forms.best else {
            return Ok(Run::Refused("nothing calibrates it".to_owned()));
        };
        remarks.insert(
            0,
            format!(
                "{}; {:.4} of {} samples held back are right, {:.4} before compression",
                best.way, best.held, world.bound.count, world.bound.whole
            ),
        );
        Ok(Run::Kept(Box::new(Compressed {
            graph: best.graph,
            onnx: best.onnx,
            form: best.form,
            way: best.way,
            tensors: best.tensors,
            structures,
            tried: Vec::new(),
            remarks,
            seconds: 0.0,
            loss_max: world.bound.loss,
        })))
    }

    /// Learns how every weight is rounded.
    fn rounded(
        &mut self,
        index: usize,
        forms: &mut Forms<'_, '_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<bool, Error> {
        let key = format!("rounding {index}");
        let graph = forms.evened()?;
        let seen = forms.look(&graph)?;
        let some = &forms.calibration[..forms.calibration.len().min(ROUNDING_SAMPLES * each(&graph))];
        let ranges = seen.ranges(forms.calibrator);
        let seed = seed_of(self.spec.seed, &key);
        let mut rounding =
            Rounding::new(&graph, &ranges, forms.reduce_range, some, seed).map_err(Error::Compress)?;
        if let Some((graph, next)) = journal.resume_rounding(&key) {
            rounding.restore(graph, usize::try_from(next).unwrap_or(0));
        } else if let Some(done) = journal.graph(&key) {
            rounding.restore(done.clone(), graph.nodes().len());
        }
        loop {
            let (next, total) = rounding.progress();
            if next >= total {
                break;
            }
            rounding.step().map_err(Error::Compress)?;
            journal.state.steps += 1;
            if clock.due_for_report() {
                self.say(forms.world, journal, format!("rounding of node {} of {total}", next + 1));
            }
            if clock.due_for_checkpoint() {
                journal.under_way(&key, rounding.graph(), rounding.progress().0 as u64);
                self.checkpoint_compression(journal, &[], clock)?;
            }
            if (self.hooks.stop)() {
                return Err(Error::Stopped);
            }
        }
        let (graph, encoding) = rounding.finish();
        if journal.graph(&key).is_none() {
            journal.keep(&key, graph.clone());
            self.checkpoint_compression(journal, &[], clock)?;
        }
        let way = format!("calibrated by {}, rounding learned", forms.calibrator);
        forms.offer(&graph, &encoding, &seen, way)
    }

    /// Trains with rounding.
    fn aware(
        &mut self,
        index: usize,
        forms: &mut Forms<'_, '_>,
        journal: &mut Journal,
        clock: &mut Clock,
    ) -> Result<bool, Error> {
        let key = format!("rounding aware {index}");
        let seen = forms.look(&forms.graph)?;
        let fake = Fake::new(&forms.graph, &seen.ranges(forms.calibrator), forms.reduce_range);
        let net = Trainable::rounded(&forms.graph, fake.map_err(compress::Error::from)?);
        let steps = share_of(forms.world.full, AWARE_SHARE);
        let plan = Plan { steps, rate: AWARE_RATE, augment: forms.world.augment };
        let net = self.retrained(&key, net, plan, forms.world, journal, clock)?;
        let graph = net.to_graph().map_err(compress::Error::from)?;
        let Some(fake) = net.fake() else { return Ok(false) };
        let encoding = fake.encoding(&graph, &net.params).map_err(compress::Error::from)?;
        // The values behind the trained weights are others than those that were calibrated.
        let seen = forms.look(&graph)?;
        let way = format!("trained with rounding from ranges by {}", forms.calibrator);
        forms.offer(&graph, &encoding, &seen, way)
    }
}

impl Forms<'_, '_> {
    /// INT8 by calibration alone.
    fn by_calibration(&mut self) -> Result<bool, Error> {
        let graph = self.graph.clone();
        let Some(calibrator) = self.calibrations(&graph, "")? else { return Ok(true) };
        self.calibrator = calibrator;
        Ok(false)
    }

    /// The rule of ranges whose form answers most right, without offering any.
    fn most_accurate_rule(&self) -> Result<Calibrator, Error> {
        let fp32 = onnx::write_f32(&self.graph).map_err(compress::Error::from)?;
        let found = quantise(&self.graph, &fp32, &self.calibration, self.world.ort, self.reduce_range);
        let mut best = (f64::NEG_INFINITY, self.calibrator);
        for candidate in found.map_err(compress::Error::from)? {
            let held = self.world.judge.of_model(&candidate.onnx_int8)?;
            if held > best.0 {
                best = (held, candidate.calibrator);
            }
        }
        Ok(best.1)
    }

    /// Channels equalised, biases corrected, and both.
    fn corrected(&mut self) -> Result<bool, Error> {
        let even = equalised(&self.graph).map_err(compress::Error::from)?;
        let graphs = [(Some(self.graph.clone()), ""), (even, ", channels equalised")];
        for (graph, told) in graphs.into_iter().filter_map(|(graph, told)| Some((graph?, told))) {
            if !told.is_empty() && self.calibrations(&graph, told)?.is_none() {
                return Ok(true);
            }
            let seen = self.look(&graph)?;
            let encoding = Encoding::from_ranges(&graph, &seen.ranges(self.calibrator), self.reduce_range);
            let encoding = encoding.map_err(compress::Error::from)?;
            let shifted = bias_corrected(&graph, &encoding, &seen)?;
            let way = format!("calibrated by {}{told}, biases corrected", self.calibrator);
            if self.offer(&shifted, &encoding, &seen, way)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Offers every rule of ranges; the best of them, or `None` where one is enough.
    fn calibrations(&mut self, graph: &Graph, told: &str) -> Result<Option<Calibrator>, Error> {
        let fp32 = onnx::write_f32(graph).map_err(compress::Error::from)?;
        let found = quantise(graph, &fp32, &self.calibration, self.world.ort, self.reduce_range);
        let mut best = (f64::NEG_INFINITY, self.calibrator);
        for candidate in found.map_err(compress::Error::from)? {
            let held = self.world.judge.of_model(&candidate.onnx_int8)?;
            if held > best.0 {
                best = (held, candidate.calibrator);
            }
            let way = format!("calibrated by {}{told}", candidate.calibrator);
            let (onnx, tensors) = (candidate.onnx_int8, candidate.tensors);
            if self.take(Form { graph: graph.clone(), onnx, form: ModelForm::Int8, way, tensors, held }) {
                return Ok(None);
            }
        }
        Ok(Some(best.1))
    }

    /// The network with equalised channels, where it has any to equalise.
    fn evened(&self) -> Result<Graph, Error> {
        let even = equalised(&self.graph).map_err(compress::Error::from)?;
        Ok(even.unwrap_or_else(|| self.graph.clone()))
    }

    fn look(&self, graph: &Graph) -> Result<Seen, Error> {
        Ok(look(graph, &self.calibration, self.world.ort).map_err(compress::Error::from)?)
    }

    /// Writes a form and takes it in; whether it is enough.
    fn offer(&mut self, graph: &Graph, encoding: &Encoding, seen: &Seen, way: String) -> Result<bool, Error> {
        let onnx = onnx::write_qdq(graph, encoding).map_err(compress::Error::from)?;
        let held = self.world.judge.of_model(&onnx)?;
        let tensors = quantise::report(graph, encoding, seen);
        Ok(self.take(Form { graph: graph.clone(), onnx, form: ModelForm::Int8, way, tensors, held }))
    }

    /// Keeps a form that is better than those before it; whether it keeps the bound.
    fn take(&mut self, form: Form) -> bool {
        let enough = self.world.bound.holds(form.held);
        if self.best.as_ref().is_none_or(|best| form.held > best.held) {
            self.best = Some(form);
        }
        enough
    }

    /// The form of 16-bit floats, or why it is of no use.
    fn halved(&self, bytes_max: u64) -> Result<Result<Form, String>, Error> {
        let onnx = match onnx::write_f16(&self.graph) {
            Ok(onnx) => onnx,
            Err(error) => return Ok(Err(format!("cannot be written: {error}"))),
        };
        let needed = onnx::constant_bytes(&onnx).map_err(compress::Error::from)?;
        if needed > bytes_max {
            return Ok(Err(format!("needs {needed} bytes of weights where {bytes_max} are allowed")));
        }
        let held = self.world.judge.of_model(&onnx)?;
        if !self.world.bound.holds(held) {
            return Ok(Err(format!("has no more than {held:.4}")));
        }
        let (graph, way) = (self.graph.clone(), "weights as 16-bit floats".to_owned());
        Ok(Ok(Form { graph, onnx, form: ModelForm::Fp16, way, tensors: Vec::new(), held }))
    }
}

fn each(graph: &Graph) -> usize {
    graph.input_shape().elements()
}
