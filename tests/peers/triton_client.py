"""Drives an agent with Triton's own HTTP client.

triton_client.py ADDRESS MODEL SPLIT_DIR: lists, describes and infers; prints what came back as JSON.
"""

import json
import pathlib
import sys

import numpy
import tritonclient.http as triton

SAMPLES = 500


def main() -> None:
    address, model, split = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    about = json.loads((split / "split.json").read_text())
    inputs = numpy.fromfile(split / "inputs.f32", dtype="<f4").reshape([-1, *about["shape"]])
    client = triton.InferenceServerClient(address)

    def infer(batch, datatype, binary):
        tensor = triton.InferInput("input", list(batch.shape), datatype)
        tensor.set_data_from_numpy(batch, binary_data=binary)
        output = triton.InferRequestedOutput("probabilities", binary_data=binary)
        return client.infer(model, [tensor], outputs=[output], request_id="r-1").as_numpy("probabilities")

    answers = [infer(inputs[at : at + 10], "FP32", True).argmax(axis=1) for at in range(0, SAMPLES, 10)]
    right = numpy.concatenate(answers) == numpy.asarray(about["classes"][:SAMPLES])
    few = inputs[:3]
    raw = numpy.rint(few * 255).astype(numpy.uint8)
    json.dump(
        {
            "live": client.is_server_live(),
            "ready": client.is_server_ready() and client.is_model_ready(model),
            "index": client.get_model_repository_index(),
            "metadata": client.get_model_metadata(model),
            "accuracy": float(right.mean()),
            "json_equals_binary": bool(numpy.allclose(infer(few, "FP32", False), infer(few, "FP32", True), atol=1e-6)),
            "uint8_equals_fp32": bool(numpy.allclose(infer(raw, "UINT8", True), infer(few, "FP32", True), atol=1e-5)),
        },
        sys.stdout,
    )


main()
