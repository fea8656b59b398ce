"""Quantises models with onnxruntime.quantization, and measures models side by side.

One JSON object a line on standard input, one on standard output.

{"quantise": CALIBRATOR, "fp32", "calibrate", "shape", "out", "reduce_range"} writes a static QDQ model, per channel, u8 activations
and s8 weights, by CALIBRATOR (MinMax, Entropy or Percentile) over the rows of the array `calibrate`, `shape` each; answers {"seconds"}
or {"error"}.

{"measure": [MODEL...], "samples", "shape", "labels", "runs", "turn"} runs MODELs, the f32 one first, on the rows of the array
`samples`, one thread, one row a run, in turns of `turn` runs; answers {"version", "models": [{"sqnr_db", "accuracy",
"difference_max", "us": [...]}]}. SQNR is that of the outputs to the first model's; `labels` may be null.
"""

import json
import pathlib
import sys
import tempfile
import time

import numpy
import onnxruntime
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

DECIBELS_MAX = 200.0


class Rows(quantization.CalibrationDataReader):
    def __init__(self, rows: numpy.ndarray) -> None:
        self.rows = iter(rows)

    def get_next(self) -> dict | None:
        row = next(self.rows, None)
        return None if row is None else {"input": row[None]}


def load(path: str, shape: list[int]) -> numpy.ndarray:
    return numpy.load(path).astype(numpy.float32).reshape([-1, *shape])


def quantise(request: dict) -> dict:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # As its manual has it: shapes and folded constants first.
        prepared = str(pathlib.Path(folder) / "prepared.onnx")
        quant_pre_process(request["fp32"], prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            request["out"],
            Rows(load(request["calibrate"], request["shape"])),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=request["reduce_range"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[request["quantise"]],
        )
    return {"seconds": time.perf_counter() - started}


def session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(request: dict) -> dict:
    rows = load(request["samples"], request["shape"])
    sessions = [session(path) for path in request["measure"]]
    answers = [numpy.concatenate([run.run(None, {"input": row[None]})[0] for row in rows]) for run in sessions]
    labels = None if request["labels"] is None else numpy.asarray(request["labels"])
    models = []
    for answer in answers:
        signal = float((answers[0].astype(numpy.float64) ** 2).sum())
        noise = float(((answer.astype(numpy.float64) - answers[0]) ** 2).sum())
        decibels = DECIBELS_MAX if noise == 0 else 10 * numpy.log10(signal / noise)
        models.append(
            {
                "sqnr_db": float(numpy.clip(decibels, -DECIBELS_MAX, DECIBELS_MAX)),
                "accuracy": None if labels is None else float((answer.argmax(axis=1) == labels).mean()),
                "difference_max": float(abs(answer - answers[0]).max()),
                "us": [],
            }
        )
    # The first in each round is another one each time.
    for first, at in enumerate(range(0, request["runs"], request["turn"])):
        for place in range(len(sessions)):
            index = (first + place) % len(sessions)
            for turn in range(at, at + request["turn"]):
                row = rows[turn % len(rows)][None]
                started = time.perf_counter()
                sessions[index].run(None, {"input": row})
                models[index]["us"].append((time.perf_counter() - started) * 1e6)
    return {"version": onnxruntime.__version__, "models": models}


# What the library says of itself goes elsewhere.
answers_to, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = quantise(request) if "quantise" in request else measure(request)
    except Exception as error:  # A calibrator may fail on a model; that is a result.
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    print(json.dumps(answer), file=answers_to, flush=True)
