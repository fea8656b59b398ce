//! `POST …/infer`: JSON or binary tensors in, JSON or binary tensors out.

use super::{
    Api, ApiError, body,
    protocol::{
        BinarySize, HEADER_LENGTH, InferRequest, InferResponse, InputTensor, Numbers, OutputData,
        OutputParameters, OutputTensor,
    },
    text,
};
use crate::{clock::wall, models::Loaded};
use axum::{
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use shared::{limits, manifest::standardise};
use std::{borrow::Cow, cell::RefCell, sync::Arc, time::Instant};

/// A model that needs longer than this for one sample, as measured when it was tested, hands the thread's other
/// work over before it runs.
pub(super) const LONG_US: f64 = 2_000.0;

/// Most values of an answer, which as text take ten times their memory.
const OUTPUT_ELEMENTS_MAX: usize = 1 << 20;
/// Values for which a thread keeps memory between requests.
const OUTPUT_ELEMENTS_KEPT: usize = 1 << 16;

/// Inference by name.
pub(super) async fn infer(
    State(api): State<Arc<Api>>,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&api, &model, None, request).await
}

/// Inference by name and version.
pub(super) async fn infer_version(
    State(api): State<Arc<Api>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&api, &model, Some(&version), request).await
}

async fn answer(
    api: &Api,
    name: &str,
    version: Option<&str>,
    request: Request,
) -> Result<Response, ApiError> {
    let head = Head::of(request.headers());
    let body = body::read(api, request).await?;
    let (json, binary) = head.split(&body)?;
    let request = InferRequest::parse(json).map_err(ApiError::BadRequest)?;
    let _permit = api.gate.enter().await?;
    // Only now the version is chosen: after a wait the newest answers.
    let (serving, loaded) = super::metadata::find(api, name, version)?;
    let texts = text::read(&request, binary, &loaded)?;
    let wanted = texts.as_ref().map(|texts| text::wanted(&request, texts, &loaded)).transpose()?;
    if let (Some(texts), Some(text::Wanted::Writing(writing, binary))) = (&texts, &wanted) {
        return text::go_on(name, &request, (&serving, &loaded), texts, (writing, *binary));
    }
    let (input, batch) = match &texts {
        Some(texts) => texts.values(&loaded),
        None => read_input(&request, binary, &loaded)?,
    };
    let understanding = match &wanted {
        Some(text::Wanted::Understanding(outputs)) => Some(outputs),
        _ => None,
    };
    let outputs = if understanding.is_none() { Some(read_outputs(&request, &loaded)?) } else { None };

    let fed = prepared(&loaded, &input);
    OUTPUT.with_borrow_mut(|output| {
        let start = Instant::now();
        let ran = run(&loaded, &fed, batch, output);
        let took = start.elapsed();
        serving.record(&loaded, batch, ran.is_ok().then_some(took), wall());
        ran.map_err(|error| ApiError::Internal(error.to_string()))?;
        serving.offer_to_former(&loaded, &input, batch, output);
        let answer = match (&texts, understanding, &outputs) {
            (Some(texts), Some(wanted), _) => {
                text::understand(name, &request, &loaded, texts, wanted, output)
            }
            (_, _, Some(wanted)) => respond(name, &request, &loaded, wanted, batch, output),
            _ => Err(bad("nothing is asked for")),
        };
        if output.capacity() > OUTPUT_ELEMENTS_KEPT {
            *output = Vec::new();
        }
        answer
    })
}

thread_local! {
    /// Reused, so that the hot path allocates little.
    static OUTPUT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// What the model reads: rows of a table are standardised, other values are its input already.
fn prepared<'r>(loaded: &Loaded, values: &'r [f32]) -> Cow<'r, [f32]> {
    let columns = &loaded.manifest.preprocess.columns;
    if columns.is_empty() {
        return Cow::Borrowed(values);
    }
    let mut rows = values.to_vec();
    standardise(columns, &mut rows);
    Cow::Owned(rows)
}

fn run(loaded: &Loaded, input: &[f32], batch: usize, output: &mut Vec<f32>) -> Result<(), runtime::Error> {
    if loaded.measured_us * batch as f64 > LONG_US {
        tokio::task::block_in_place(|| loaded.runnable.run_into(input, batch, output))
    } else {
        loaded.runnable.run_into(input, batch, output)
    }
}

/// What the headers say of the body.
struct Head {
    encoded: bool,
    /// Bytes of the JSON where binary tensors follow it; `None` inside where that is no number.
    json_bytes: Option<Option<usize>>,
}

impl Head {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            encoded: headers.contains_key(header::CONTENT_ENCODING),
            json_bytes: headers.get(HEADER_LENGTH).map(|length| length.to_str().ok()?.parse().ok()),
        }
    }

    /// The JSON and what follows it.
    fn split<'b>(&self, body: &'b Bytes) -> Result<(&'b [u8], &'b [u8]), ApiError> {
        if self.encoded {
            return Err(bad("compressed bodies are not taken; leave Content-Encoding out"));
        }
        match self.json_bytes {
            None => Ok((body, &[])),
            Some(Some(length)) if length <= body.len() => Ok(body.split_at(length)),
            Some(_) => {
                Err(bad(&format!("Inference-Header-Content-Length is a number of 0 to {}", body.len())))
            }
        }
    }
}

/// The one input as the model wants it, and the number of samples.
fn read_input(
    request: &InferRequest<'_>,
    binary: &[u8],
    loaded: &Loaded,
) -> Result<(Vec<f32>, usize), ApiError> {
    let spec = &loaded.manifest.input;
    let [input] = request.inputs.as_slice() else {
        return Err(bad(&format!(
            "{} inputs are given, the model takes one, {:?}",
            request.inputs.len(),
            spec.name
        )));
    };
    if input.name != spec.name {
        return Err(bad(&format!(
            "input {:?} is unknown, the model takes {:?}",
            cut(&input.name),
            spec.name
        )));
    }
    let batch = match batch_of(&input.shape, &spec.shape) {
        // The one position of a row need not be written.
        Err(error) if !loaded.manifest.preprocess.columns.is_empty() => {
            batch_of(&input.shape, spec.shape.get(..1).unwrap_or_default()).map_err(|_| error)?
        }
        batch => batch?,
    };
    let elements = elements_of(loaded, batch)?;
    let values = match (input.parameters.binary_data_size, input.data) {
        (Some(_), Some(_)) => return Err(bad("an input has data or binary_data_size, not both")),
        (Some(size), None) => from_binary(input, size, binary, elements, loaded)?,
        (None, Some(_)) if !binary.is_empty() => {
            return Err(bad("bytes follow the JSON, but no input has binary_data_size"));
        }
        (None, Some(data)) => from_json(input, data.get(), elements, loaded)?,
        (None, None) => return Err(bad("the input has neither data nor binary_data_size")),
    };
    Ok((values, batch))
}

/// Values of `batch` samples, where neither they nor the answer to them are too many.
pub(super) fn elements_of(loaded: &Loaded, batch: usize) -> Result<usize, ApiError> {
    let spec = &loaded.manifest.input;
    let elements = batch
        .checked_mul(spec.elements())
        .filter(|&elements| elements <= limits::TENSOR_ELEMENTS_MAX)
        .ok_or_else(|| {
            bad(&format!("input {:?} has over {} values", spec.name, limits::TENSOR_ELEMENTS_MAX))
        })?;
    if batch.saturating_mul(loaded.manifest.output.elements()) > OUTPUT_ELEMENTS_MAX {
        return Err(bad(&format!(
            "the answer to {batch} samples has over {OUTPUT_ELEMENTS_MAX} values; send fewer at once"
        )));
    }
    Ok(elements)
}

/// `shape` is the model's with a batch before it; a single sample may leave the batch out.
fn batch_of(shape: &[u64], wanted: &[usize]) -> Result<usize, ApiError> {
    let same =
        |got: &[u64]| got.len() == wanted.len() && got.iter().zip(wanted).all(|(&g, &w)| g == w as u64);
    let batch = match shape.split_first() {
        _ if same(shape) => Some(1),
        Some((&batch, rest)) if same(rest) && batch > 0 => usize::try_from(batch).ok(),
        _ => None,
    };
    batch.ok_or_else(|| {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        bad(&format!(
            "the input's shape is {:?}, the model takes [N,{}]",
            &shape[..shape.len().min(8)],
            wanted.join(",")
        ))
    })
}

fn from_binary(
    input: &InputTensor<'_>,
    size: u64,
    binary: &[u8],
    elements: usize,
    loaded: &Loaded,
) -> Result<Vec<f32>, ApiError> {
    if size != binary.len() as u64 {
        return Err(bad(&format!("binary_data_size is {size}, {} bytes follow the JSON", binary.len())));
    }
    let width = match input.datatype.as_ref() {
        "FP32" => 4,
        "UINT8" => 1,
        other => return Err(bad_type(other)),
    };
    if binary.len() != elements * width {
        return Err(bad(&format!(
            "{} bytes of data are given, the shape needs {}",
            binary.len(),
            elements * width
        )));
    }
    if width == 1 {
        let preprocess = &loaded.manifest.preprocess;
        return Ok(binary.iter().map(|&raw| f32::from(raw) * preprocess.scale + preprocess.offset).collect());
    }
    let values: Vec<f32> = binary
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    finite(values)
}

fn from_json(
    input: &InputTensor<'_>,
    data: &str,
    elements: usize,
    loaded: &Loaded,
) -> Result<Vec<f32>, ApiError> {
    let bytes = match input.datatype.as_ref() {
        "FP32" => false,
        "UINT8" => true,
        other => return Err(bad_type(other)),
    };
    let Numbers(mut values) = serde_json::from_str(data)
        .map_err(|error| bad(&format!("the input's data is no array of numbers: {error}")))?;
    if values.len() != elements {
        return Err(bad(&format!("{} values are given, the shape needs {elements}", values.len())));
    }
    if bytes {
        let preprocess = &loaded.manifest.preprocess;
        for value in &mut values {
            if !(0.0..=255.0).contains(value) || value.fract() != 0.0 {
                return Err(bad(&format!("{value} is no UINT8")));
            }
            *value = *value * preprocess.scale + preprocess.offset;
        }
        return Ok(values);
    }
    finite(values)
}

fn finite(values: Vec<f32>) -> Result<Vec<f32>, ApiError> {
    // One pass without a branch: a sum of zeros stays zero unless a value is infinite or no number.
    let check: f32 = values.iter().map(|value| value * 0.0).sum();
    if check == 0.0 { Ok(values) } else { Err(bad("the input holds a value that is not finite")) }
}

/// How the one output is wanted.
struct Wanted {
    binary: bool,
    classification: Option<usize>,
}

fn read_outputs(request: &InferRequest<'_>, loaded: &Loaded) -> Result<Wanted, ApiError> {
    let spec = &loaded.manifest.output;
    let parameters = match request.outputs.as_slice() {
        [] => OutputParameters::default(),
        [output] if output.name == spec.name => output.parameters.clone(),
        [output] => {
            return Err(bad(&format!(
                "output {:?} is unknown, the model gives {:?}",
                cut(&output.name),
                spec.name
            )));
        }
        more => return Err(bad(&format!("{} outputs are asked for, the model gives one", more.len()))),
    };
    let classification = match parameters.classification {
        None | Some(0) => None,
        Some(count) => Some(usize::try_from(count).unwrap_or(usize::MAX).min(loaded.manifest.labels.len())),
    };
    Ok(Wanted {
        binary: parameters.binary_data.unwrap_or(request.parameters.binary_data_output),
        classification,
    })
}

fn respond(
    name: &str,
    request: &InferRequest<'_>,
    loaded: &Loaded,
    wanted: &Wanted,
    batch: usize,
    output: &[f32],
) -> Result<Response, ApiError> {
    let spec = &loaded.manifest.output;
    let labels = &loaded.manifest.labels;
    let (datatype, shape, content) = match wanted.classification {
        Some(count) => {
            let rows = output.chunks_exact(spec.elements());
            let texts = rows.flat_map(|row| best(&row[..labels.len().min(row.len())], count, labels));
            ("BYTES", vec![batch, count], OutputData::Texts(texts.collect()))
        }
        None => ("FP32", [&[batch], spec.shape.as_slice()].concat(), OutputData::Floats(output)),
    };
    send(
        name,
        request,
        loaded,
        vec![Answered { name: &spec.name, datatype, shape, content, binary: wanted.binary }],
    )
}

/// One output of an answer.
pub(super) struct Answered<'a> {
    pub(super) name: &'a str,
    pub(super) datatype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) content: OutputData<'a>,
    pub(super) binary: bool,
}

/// An answer: JSON, and behind it what is wanted binary.
pub(super) fn send(
    name: &str,
    request: &InferRequest<'_>,
    loaded: &Loaded,
    answered: Vec<Answered<'_>>,
) -> Result<Response, ApiError> {
    let mut raw: Option<Vec<u8>> = None;
    let outputs = answered.into_iter().map(|Answered { name, datatype, shape, content, binary }| {
        if !binary {
            return OutputTensor { name, datatype, shape, parameters: None, data: Some(content) };
        }
        let bytes: Vec<u8> = match content {
            OutputData::Texts(texts) => texts.iter().flat_map(|text| length_prefixed(text)).collect(),
            OutputData::Floats(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let parameters = Some(BinarySize { binary_data_size: bytes.len() });
        raw.get_or_insert_default().extend(bytes);
        OutputTensor { name, datatype, shape, parameters, data: None }
    });
    let response = InferResponse {
        model_name: name,
        model_version: loaded.version.version.to_string(),
        id: request.id.as_deref(),
        outputs: outputs.collect(),
    };
    let mut body = serde_json::to_vec(&response).map_err(|error| ApiError::Internal(error.to_string()))?;
    let Some(raw) = raw else {
        return Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response());
    };
    let length = HeaderValue::from(body.len());
    body.extend_from_slice(&raw);
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = [(header::CONTENT_TYPE, octets), (HeaderName::from_static(HEADER_LENGTH), length)];
    Ok((headers, body).into_response())
}

/// The `count` best classes of one sample, as `value:index:label`.
fn best<'a>(row: &'a [f32], count: usize, labels: &'a [String]) -> impl Iterator<Item = String> + use<'a> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.truncate(count);
    order.into_iter().map(move |index| {
        let label = labels.get(index).map_or(Cow::Borrowed(""), |label| Cow::Borrowed(label.as_str()));
        format!("{:.6}:{index}:{label}", row[index])
    })
}

/// An element of a BYTES tensor.
fn length_prefixed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), text.as_bytes()].concat()
}

pub(super) fn bad(text: &str) -> ApiError {
    ApiError::BadRequest(text.to_owned())
}

fn bad_type(datatype: &str) -> ApiError {
    bad(&format!(
        "datatype {:?} is not taken; use FP32 (the model's input, or the rows of a table) or UINT8 (raw values)",
        cut(datatype)
    ))
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
