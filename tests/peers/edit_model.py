"""Successors of an exported INT8 model, made as they are made in life.

edit_model.py MODEL MNIST_DIR OUT_DIR: writes to OUT_DIR base.onnx, which is MODEL as this library writes it, and

- last-layer.onnx: the classifier trained on, on images that the model has not seen, and quantised anew;
- scales.onnx: ranges of activations measured anew, on those images: scales and biases follow.

Prints a list of {"case", "file", "accuracy_before", "accuracy_after"}, measured on other images.
"""

import gzip
import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
from onnx import numpy_helper

STEPS, RATE, HOLD_OUT = 200, 0.5, 5000
PERCENTILE = 99.99


def read_idx(folder: pathlib.Path, stem: str) -> numpy.ndarray:
    path = next(path for path in sorted(folder.iterdir()) if path.name.startswith(stem))
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    dimensions = data[3]
    shape = numpy.frombuffer(data, ">u4", dimensions, 4)
    return numpy.frombuffer(data, "u1", offset=4 + 4 * dimensions).reshape(shape)


def run(model: onnx.ModelProto, inputs: numpy.ndarray, names: list[str]) -> list[numpy.ndarray]:
    """The values `names` of the graph, for all inputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {output.name for output in probe.graph.output}
    for name in names:
        if name not in known:
            probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    # What is looked at must not be fused away.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    parts = [
        session.run(names, {session.get_inputs()[0].name: inputs[at : at + 250]})
        for at in range(0, len(inputs), 250)
    ]
    return [numpy.concatenate(values) for values in zip(*parts)]


def accuracy(model: onnx.ModelProto, inputs: numpy.ndarray, classes: numpy.ndarray) -> float:
    [answers] = run(model, inputs, [model.graph.output[-1].name])
    return float((answers.argmax(axis=1) == classes).mean())


class Graph:
    """A copy of a model, with its constants at hand."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.maker = {output: node for node in self.model.graph.node for output in node.output}
        self.constants = {constant.name: constant for constant in self.model.graph.initializer}

    def value(self, name: str) -> numpy.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def set(self, name: str, value: numpy.ndarray) -> None:
        value = value.astype(self.value(name).dtype).reshape(self.value(name).shape)
        self.constants[name].CopyFrom(numpy_helper.from_array(value, name))

    def dequantised(self, name: str) -> numpy.ndarray:
        """What DequantizeLinear makes of a symmetric constant, along its first axis."""
        integers, scale = (self.value(part) for part in self.maker[name].input[:2])
        return integers.astype("f4") * scale.reshape([-1] + [1] * (integers.ndim - 1))


def quantise_bias(graph: Graph, node: onnx.NodeProto, bias: numpy.ndarray) -> None:
    """Bias in units of the input's scale times the weights' scales, as the forge writes it."""
    integers, scale = graph.maker[node.input[2]].input[:2]
    input_scale = graph.value(graph.maker[node.input[0]].input[1])
    weight_scale = graph.value(graph.maker[node.input[1]].input[1])
    graph.set(scale, weight_scale * input_scale)
    graph.set(integers, numpy.rint(bias / (weight_scale * input_scale)))


def train_last_layer(model: onnx.ModelProto, inputs: numpy.ndarray, classes: numpy.ndarray) -> onnx.ModelProto:
    graph = Graph(model)
    layer = [node for node in graph.model.graph.node if node.op_type == "Gemm"][-1]
    [features] = run(model, inputs, [layer.input[0]])
    weight, bias = graph.dequantised(layer.input[1]).copy(), graph.dequantised(layer.input[2]).copy()
    wanted = numpy.eye(len(bias), dtype="f4")[classes]
    for _ in range(STEPS):
        scores = features @ weight.T + bias
        shares = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        error = (shares / shares.sum(axis=1, keepdims=True) - wanted) / len(classes)
        weight -= RATE * error.T @ features
        bias -= RATE * error.sum(axis=0)
    integers, scale = graph.maker[layer.input[1]].input[:2]
    most = numpy.abs(graph.value(integers).astype("i4")).max()
    step = numpy.abs(weight).max(axis=1) / most
    graph.set(scale, step)
    graph.set(integers, numpy.rint(weight / step[:, None]).clip(-most, most))
    quantise_bias(graph, layer, bias)
    return graph.model


def calibrate(model: onnx.ModelProto, inputs: numpy.ndarray) -> onnx.ModelProto:
    graph = Graph(model)
    biases = [
        (node, graph.dequantised(node.input[2]).copy())
        for node in graph.model.graph.node
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2] in graph.maker
    ]
    pairs = [node for node in graph.model.graph.node if node.op_type == "QuantizeLinear"]
    names = sorted({node.input[0] for node in pairs} - {model.graph.input[0].name})
    values = dict(zip(names, run(model, inputs, names)))
    scales: dict[str, float] = {}
    for node in pairs:
        if node.input[0] not in values:
            continue
        low, high = numpy.percentile(values[node.input[0]], [100 - PERCENTILE, PERCENTILE])
        zero = int(graph.value(node.input[2]))
        # The zero point stays: what it divides is the same function.
        scale = max(high / (255 - zero) if zero < 255 else 0, -low / zero if zero > 0 else 0)
        scales[node.input[1]] = max(scales.get(node.input[1], 0), scale)
    for name, scale in scales.items():
        graph.set(name, numpy.asarray(scale))
    for node, bias in biases:
        quantise_bias(graph, node, bias)
    return graph.model


def main() -> None:
    path, data, out = (pathlib.Path(argument) for argument in sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    model = onnx.load(path)
    onnx.save(model, out / "base.onnx")
    images = (read_idx(data, "t10k-images").astype("f4") / 255)[:, None]
    classes = read_idx(data, "t10k-labels").astype("i8")
    new, rest = slice(0, len(images) - HOLD_OUT), slice(len(images) - HOLD_OUT, None)
    before = accuracy(model, images[rest], classes[rest])
    made = []
    for case, name, edited in [
        ("last layer fine-tuned", "last-layer.onnx", train_last_layer(model, images[new], classes[new])),
        ("quantisation scales", "scales.onnx", calibrate(model, images[new])),
    ]:
        onnx.checker.check_model(edited, full_check=True)
        onnx.save(edited, out / name)
        after = accuracy(edited, images[rest], classes[rest])
        made.append(
            {
                "case": case,
                "file": str(out / name),
                "accuracy_before": before,
                "accuracy_after": after,
            }
        )
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
