"""Runs exports as somebody does who has only a runtime: reads jobs from standard input as JSON.

Each has the runtime, the artefact, and files with inputs and expected logits; the largest
difference of each is printed. Nothing of this project may be imported.
"""

import json
import sys
from typing import Any

import numpy as np


def opened(runtime: str, path: str) -> Any:
    """Return a function of named arrays."""
    if runtime == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]
    if runtime == "openvino":
        import openvino

        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(path, "CPU", hint)
        return lambda inputs: compiled(inputs)[0]
    import torch

    if runtime == "torch":
        program = torch.export.load(path).module()
    else:
        program = torch._inductor.aoti_load_package(path)
    return lambda inputs: program(*map(torch.from_numpy, inputs.values())).detach().numpy()


largest = []
for job in json.load(sys.stdin):
    run = opened(job["runtime"], job["path"])
    apart = 0.0
    for batch in job["batches"]:
        with np.load(batch) as arrays:
            inputs = {name: arrays[name] for name in arrays.files if name != "expected"}
            expected = arrays["expected"]
        logits = run(inputs)
        assert logits.shape == expected.shape
        if expected.size:
            apart = max(apart, float(np.abs(logits - expected).max()))
    largest.append(apart)
assert not [name for name in sys.modules if name.split(".")[0] == "dlrm"]
print(json.dumps(largest))
