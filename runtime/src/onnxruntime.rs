//! ONNX Runtime, loaded from a library on the board.

use crate::{
    Error, LoadOptions, Runnable, Runtime, TensorInfo, check_input, check_size, no_panic, one_line,
    pool::Pool, preflight, run_samples,
};
use ort::{
    environment::Environment,
    ep::CPU,
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, TensorRef},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

const NAME: &str = "onnxruntime";
/// What the dynamic loader is asked for where nobody names a file.
const LIBRARY: &str = "libonnxruntime.so";

/// The library, opened once a process.
#[derive(Clone, Debug)]
pub struct Ort(&'static Opened);

#[derive(Debug)]
pub(crate) struct Opened {
    library: PathBuf,
    environment: Environment,
}

/// Where the library is looked for: `given`, else the environment's `EDGEWRIGHT_ORT`, else what the dynamic loader finds.
pub fn library_path(given: Option<&Path>) -> PathBuf {
    given
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("EDGEWRIGHT_ORT").filter(|path| !path.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(LIBRARY))
}

impl Ort {
    /// Opens the library (see [`library_path`]). A process opens one; asking for another later is an error.
    pub fn open(given: Option<&Path>) -> Result<Self, Error> {
        static OPENED: OnceLock<Opened> = OnceLock::new();
        static OPENING: Mutex<()> = Mutex::new(());
        let library = library_path(given);
        let failed = |reason: String| Error::Library { reason };
        // One thread opens, and a failure leaves the way free for another file.
        let guard = OPENING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let opened = match OPENED.get() {
            Some(opened) => opened,
            None => {
                let new = open_library(&library).map_err(failed)?;
                OPENED.get_or_init(|| new)
            }
        };
        drop(guard);
        if opened.library == library {
            return Ok(Self(opened));
        }
        Err(failed(format!(
            "{} is open already, {} cannot be too",
            opened.library.display(),
            library.display()
        )))
    }

    pub(crate) fn opened(&self) -> &'static Opened {
        self.0
    }

    /// The graph that the library really runs on this machine, after its own rewriting, as the bytes of an ONNX file. It
    /// is written to `place`, which must be free, and removed from there.
    ///
    /// # Errors
    /// The library does not take the model, or `place` cannot be written or read.
    pub fn rewritten(&self, model: &[u8], place: &Path) -> Result<Vec<u8>, Error> {
        check_size(model)?;
        preflight::read(model).map_err(|reason| Error::Load { runtime: NAME, reason })?;
        let failed = |reason: String| Error::Load { runtime: NAME, reason };
        no_panic(|| {
            let builder = session_builder(self.0, &LoadOptions::default())?;
            let mut builder = builder.with_optimized_model_path(place).map_err(|error| one_line(&error))?;
            builder.commit_from_memory(model).map_err(|error| one_line(&error)).map(drop)
        })
        .map_err(failed)?;
        let bytes = std::fs::read(place).map_err(|error| failed(format!("{}: {error}", place.display())));
        // What lies in a folder for temporary files does no harm.
        let _ = std::fs::remove_file(place);
        bytes
    }

    /// The file that was opened.
    pub fn library(&self) -> &Path {
        &self.0.library
    }
}

fn open_library(library: &Path) -> Result<Opened, String> {
    if library.components().count() > 1 && !library.is_file() {
        return Err(format!("there is no file {}", library.display()));
    }
    no_panic(|| {
        let environment = ort::init_from(library).map_err(|error| one_line(&error))?;
        let environment = environment.with_name("edgewright").with_telemetry(false).build();
        let environment = environment.map_err(|error| one_line(&error))?;
        Ok(Opened { library: library.to_path_buf(), environment })
    })
}

impl Runtime for Ort {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &[u8], options: &LoadOptions) -> Result<Arc<dyn Runnable>, Error> {
        check_size(model)?;
        preflight::read(model).map_err(|reason| Error::Load { runtime: NAME, reason })?;
        let first = open_session(self.0, model, options)?;
        let input = describe(first.inputs(), "input")?;
        let output = describe(first.outputs(), "output")?;
        let mut sessions = vec![first];
        while sessions.len() < options.session_count() {
            sessions.push(open_session(self.0, model, options)?);
        }
        // Warm, each: the first run of a session allocates. One that fails will show in the golden check; one that
        // fails with many samples only takes one at a time.
        let form = Form { input, output };
        let many = run_samples(&form.input, options);
        let samples = vec![0f32; many * form.input.elements()];
        let mut scratch = Vec::new();
        for session in &mut sessions {
            let _ = form.run(session, &samples[..form.input.elements()], 1, &mut scratch);
        }
        scratch.clear();
        let together =
            if form.run(&mut sessions[0], &samples, many, &mut scratch).is_ok() { many } else { 1 };
        Ok(Arc::new(OrtRunnable { form, together, sessions: Pool::new(sessions) }))
    }
}

pub(crate) fn open_session(opened: &Opened, model: &[u8], options: &LoadOptions) -> Result<Session, Error> {
    let open = || -> Result<Session, String> {
        session_builder(opened, options)?.commit_from_memory(model).map_err(|error| one_line(&error))
    };
    no_panic(open).map_err(|reason| Error::Load { runtime: NAME, reason })
}

fn session_builder(opened: &Opened, options: &LoadOptions) -> Result<SessionBuilder, String> {
    let text = |error: &dyn fmt::Display| one_line(error);
    Session::builder(&opened.environment)
        .map_err(|error| text(&error))?
        .with_intra_threads(options.threads)
        .map_err(|error| text(&error))?
        .with_inter_threads(1)
        .map_err(|error| text(&error))?
        .with_intra_op_spinning(false)
        .map_err(|error| text(&error))?
        // On x86 without VNNI the kernels for u8 activations and s8 weights saturate where a weight needs all of its 8
        // bits: exact ones there. For weights of 7 bits, and on other processors, it changes nothing.
        .with_precise_qmm()
        .map_err(|error| text(&error))?
        .with_optimization_level(GraphOptimizationLevel::Level3)
        .map_err(|error| text(&error))?
        .with_execution_providers([CPU::default().with_arena_allocator(false).build()])
        .map_err(|error| text(&error))
}

fn describe(outlets: &[Outlet], what: &str) -> Result<TensorInfo, Error> {
    let form = |reason: String| Error::Form { runtime: NAME, reason };
    let [outlet] = outlets else { return Err(form(format!("{} {what}s", outlets.len()))) };
    let dtype = outlet.dtype();
    if dtype.tensor_type() != Some(TensorElementType::Float32) {
        return Err(form(format!("{what} {:?} is not f32", outlet.name())));
    }
    let shape = dtype.tensor_shape().ok_or_else(|| form(format!("{what} has no shape")))?;
    let sizes: Option<Vec<usize>> =
        shape.iter().skip(1).map(|&size| usize::try_from(size).ok().filter(|&size| size > 0)).collect();
    match sizes {
        Some(sizes) if !shape.is_empty() => Ok(TensorInfo { name: outlet.name().to_owned(), shape: sizes }),
        _ => Err(form(format!("{what} shape {shape:?} is not fixed behind the batch"))),
    }
}

/// What goes in and comes out of a model.
#[derive(Debug)]
struct Form {
    input: TensorInfo,
    output: TensorInfo,
}

struct OrtRunnable {
    form: Form,
    /// Samples of one run.
    together: usize,
    // A session runs one request at a time.
    sessions: Pool<Session>,
}

impl fmt::Debug for OrtRunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrtRunnable").field("form", &self.form).finish_non_exhaustive()
    }
}

impl Form {
    /// Runs `batch` samples together and appends what comes out.
    fn run(
        &self,
        session: &mut Session,
        input: &[f32],
        batch: usize,
        output: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let run = || -> Result<(), String> {
            let mut shape = Vec::with_capacity(4);
            shape.push(batch);
            shape.extend_from_slice(&self.input.shape);
            let tensor = TensorRef::from_array_view((shape, input)).map_err(|error| one_line(&error))?;
            let outputs = session.run(ort::inputs![tensor]).map_err(|error| one_line(&error))?;
            let (_, values) = outputs[0].try_extract_tensor::<f32>().map_err(|error| one_line(&error))?;
            let expected = batch * self.output.elements();
            if values.len() != expected {
                return Err(format!("{} values came out, expected {expected}", values.len()));
            }
            output.extend_from_slice(values);
            Ok(())
        };
        no_panic(run).map_err(|reason| Error::Run { runtime: NAME, reason })
    }
}

impl Runnable for OrtRunnable {
    fn runtime(&self) -> &'static str {
        NAME
    }

    fn input(&self) -> &TensorInfo {
        &self.form.input
    }

    fn output(&self) -> &TensorInfo {
        &self.form.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Error> {
        check_input(&self.form.input, input, batch)?;
        output.clear();
        let each = self.form.input.elements();
        let mut session = self.sessions.take();
        for part in input.chunks(self.together * each) {
            self.form.run(&mut session, part, part.len() / each, output)?;
        }
        Ok(())
    }
}
