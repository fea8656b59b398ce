"""Checks an exported model with onnx.checker and measures its accuracy with onnxruntime.

check_onnx.py MODEL SPLIT_DIR: SPLIT_DIR holds inputs.f32 and split.json ({"shape", "classes"}).
Prints {"accuracy", "opset", "operators"}.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime


def main() -> None:
    path, split = sys.argv[1], pathlib.Path(sys.argv[2])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    about = json.loads((split / "split.json").read_text())
    inputs = numpy.fromfile(split / "inputs.f32", dtype="<f4").reshape([-1, *about["shape"]])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    classes = numpy.asarray(about["classes"])
    answers = [
        session.run(["probabilities"], {"input": inputs[at : at + 100]})[0].argmax(axis=1)
        for at in range(0, len(inputs), 100)
    ]
    accuracy = float((numpy.concatenate(answers) == classes).mean())
    json.dump(
        {
            "accuracy": accuracy,
            "opset": {entry.domain: entry.version for entry in model.opset_import},
            "operators": sorted({node.op_type for node in model.graph.node}),
        },
        sys.stdout,
    )


main()
