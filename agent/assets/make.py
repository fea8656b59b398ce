#!/usr/bin/env python3
"""Makes selftest.onnx and selftest.safetensors. Needs numpy, onnx and onnxruntime."""
import json
import pathlib
import struct

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent
CLASSES, SAMPLES = 3, 6
rng = np.random.default_rng(7)


def tensor(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


conv = rng.normal(0, 0.4, (4, 1, 3, 3))
scales = np.abs(conv).reshape(4, -1).max(1) / 127
weights = np.clip(np.round(conv / scales.reshape(4, 1, 1, 1)), -127, 127)
layer = rng.normal(0, 20, (CLASSES, 4))

# A grey, an edge across, an edge down and noise, so that the answers differ.
inputs = (rng.integers(0, 256, (SAMPLES, 1, 8, 8)) / 255).astype(np.float32)
inputs[0] = 128 / 255
inputs[1, :, :4], inputs[1, :, 4:] = 1, 0
inputs[2, :, :, :4], inputs[2, :, :, 4:] = 0, 1
inputs[3, :, ::2], inputs[3, :, 1::2] = 1, 0
inputs[4, :, :, ::2], inputs[4, :, :, 1::2] = 0, 1


def build(bias, output):
    initializers = [
        tensor("ws", scales), tensor("w", weights, np.int8), tensor("wz", [0] * 4, np.int8),
        tensor("s", 1 / 255), tensor("z", 0, np.uint8), tensor("s1", 4 / 255),
        tensor("lw", layer), tensor("lb", bias),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("Conv", ["dq", "dw"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s1", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s1", "z"], ["rdq"]),
        helper.make_node("GlobalAveragePool", ["rdq"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "lw", "lb"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes, "selftest",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    raw = model.SerializeToString()
    return raw, onnxruntime.InferenceSession(raw).run(None, {"input": inputs})[0]


# Logits around zero: each class gets its share of the inputs.
_, logits = build([0] * CLASSES, "l")
model, outputs = build(-logits.mean(0), "probabilities")
(HERE / "selftest.onnx").write_bytes(model)

header, data = {}, b""
for name, values in [("input", inputs), ("output", outputs)]:
    raw = values.astype("<f4").tobytes()
    header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw
head = json.dumps(header, separators=(",", ":")).encode()
head += b" " * (-len(head) % 8)
(HERE / "selftest.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
print(outputs.round(3))
