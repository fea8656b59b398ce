"""Times onnxruntime from Python, one thread, one sample a run.

One JSON object a line on standard input, {"model", "shape", "samples"}; the answer is a line with {"us": [...],
"labels": [...], "version": onnxruntime's}: of each sample the microseconds of the run and the index of the largest
output. Reading the samples and finding the index are not timed.
"""

import json
import sys
import time

import numpy
import onnxruntime

sessions = {}


def session(path):
    if path not in sessions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        sessions[path] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return sessions[path]


for line in sys.stdin:
    request = json.loads(line)
    model = session(request["model"])
    arrays = [numpy.asarray(sample, dtype=numpy.float32).reshape(request["shape"]) for sample in request["samples"]]
    times, labels = [], []
    for array in arrays:
        start = time.perf_counter()
        (probabilities,) = model.run(["probabilities"], {"input": array})
        times.append((time.perf_counter() - start) * 1e6)
        labels.append(int(probabilities.argmax()))
    print(json.dumps({"us": times, "labels": labels, "version": onnxruntime.__version__}), flush=True)
