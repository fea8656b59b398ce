//! ONNX Runtime, loaded from a library on the board.

use crate::{
    Error, LoadOptions, Runnable, Runtime, TensorInfo, check_input, check_size, no_panic, one_line, preflight,
};
use ort::{
    environment::Environment,
    ep::CPU,
    session::{Session, builder::GraphOptimizationLevel},
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
/// Sessions kept for reuse by concurrent callers of one model.
const SESSIONS_KEPT: usize = 4;

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
        let session = open_session(self.0, model, options)?;
        let input = describe(session.inputs(), "input")?;
        let output = describe(session.outputs(), "output")?;
        Ok(Arc::new(OrtRunnable {
            opened: self.0,
            model: model.into(),
            options: options.clone(),
            input,
            output,
            idle: Mutex::new(vec![session]),
        }))
    }
}

pub(crate) fn open_session(opened: &Opened, model: &[u8], options: &LoadOptions) -> Result<Session, Error> {
    let open = || -> Result<Session, String> {
        let text = |error: &dyn fmt::Display| one_line(error);
        Session::builder(&opened.environment)
            .map_err(|error| text(&error))?
            .with_intra_threads(options.threads)
            .map_err(|error| text(&error))?
            .with_inter_threads(1)
            .map_err(|error| text(&error))?
            .with_intra_op_spinning(false)
            .map_err(|error| text(&error))?
            .with_optimization_level(GraphOptimizationLevel::Level3)
            .map_err(|error| text(&error))?
            .with_execution_providers([CPU::default().with_arena_allocator(false).build()])
            .map_err(|error| text(&error))?
            .commit_from_memory(model)
            .map_err(|error| text(&error))
    };
    no_panic(open).map_err(|reason| Error::Load { runtime: NAME, reason })
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

struct OrtRunnable {
    opened: &'static Opened,
    model: Arc<[u8]>,
    options: LoadOptions,
    input: TensorInfo,
    output: TensorInfo,
    // A session runs one request at a time; each caller takes one and puts it back.
    idle: Mutex<Vec<Session>>,
}

impl fmt::Debug for OrtRunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrtRunnable")
            .field("input", &self.input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl OrtRunnable {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Runnable for OrtRunnable {
    fn runtime(&self) -> &'static str {
        NAME
    }

    fn input(&self) -> &TensorInfo {
        &self.input
    }

    fn output(&self) -> &TensorInfo {
        &self.output
    }

    fn run_into(&self, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), Error> {
        check_input(&self.input, input, batch)?;
        let taken = self.idle().pop();
        let mut session = match taken {
            Some(session) => session,
            None => open_session(self.opened, &self.model, &self.options)?,
        };
        let failed = |reason: String| Error::Run { runtime: NAME, reason };
        let mut shape = Vec::with_capacity(4);
        shape.push(batch);
        shape.extend_from_slice(&self.input.shape);
        let tensor = TensorRef::from_array_view((shape, input)).map_err(|error| failed(one_line(&error)))?;
        let expected = batch * self.output.elements();
        {
            let outputs = session.run(ort::inputs![tensor]).map_err(|error| failed(one_line(&error)))?;
            let (_, values) =
                outputs[0].try_extract_tensor::<f32>().map_err(|error| failed(one_line(&error)))?;
            if values.len() != expected {
                return Err(failed(format!("{} values came out, expected {expected}", values.len())));
            }
            output.clear();
            output.extend_from_slice(values);
        }
        let mut idle = self.idle();
        if idle.len() < SESSIONS_KEPT {
            idle.push(session);
        }
        Ok(())
    }
}
