"""OpenVINO: runs the graph of an export, in the fastest precision on this machine."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.core.extras import require
from qpairs.core.timing import best_ratio
from qpairs.encoders.batches import Ints
from qpairs.models.base import Floats
from qpairs.models.graphs import Engine

GROUP = 128  # inputs of a product that share a scale; the products are slower with more, and not of 8 bits with 512
OPENVINO_SPEEDUP = 1.2  # of bfloat16, above which it is used: noise alone must not decide


def open_openvino(graph: Path, cores: int, *, int8: bool) -> Engine:
    """Runs a graph by OpenVINO, on one core for each calling thread.

    Weights in 8 bits are multiplied by activations in 8 bits, with a dynamic scale for each `GROUP` of them. Weights in
    float32 are multiplied in bfloat16 if this machine is faster at that.

    Args:
        graph: an ONNX file.
        cores: that may be used.
        int8: whether the weights are in 8 bits.

    Raises:
        UserError: OpenVINO is not installed.
    """
    openvino = require("openvino", f"{graph.parent}: an OpenVINO export")
    settings = {
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": cores,
        "INFERENCE_PRECISION_HINT": "f32" if int8 or not openvino_bf16_is_faster() else "bf16",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if int8 else 0,
        "ENABLE_CPU_PINNING": False,  # the machine has other work, too
    }
    compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
    local = threading.local()  # a request is one thread's

    def run(inputs: Mapping[str, Ints]) -> Floats:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        found: Floats = local.request.infer(dict(inputs), share_inputs=True)[0].copy()
        return found

    row = [size.get_length() for size in list(compiled.output(0).partial_shape)[1:]]
    return Engine(run, [each.get_any_name() for each in compiled.inputs], row)


@functools.cache
def openvino_bf16_is_faster() -> bool:
    """Whether OpenVINO multiplies matrices faster in bfloat16 than in float32 here.

    The instruction set does not decide: with AMX it is several times as fast, with AVX512-BF16 alone half as fast on an
    Intel Xeon.
    """
    openvino = require("openvino", "an OpenVINO export")
    core, inputs = openvino.Core(), [np.ones((1024, 384), dtype=np.float32)]
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return False
    runs = [functools.partial(_product(openvino, core, kind).infer, inputs) for kind in ("f32", "bf16")]
    return best_ratio(*runs) > OPENVINO_SPEEDUP


def _product(openvino: Any, core: Any, precision: str) -> Any:
    """A matrix product with the shapes of MiniLM, on one core, ready to run."""
    operations = openvino.opset13
    inputs = operations.parameter([1024, 384], np.float32)
    weights = operations.constant(np.ones((384, 1536), dtype=np.float32))
    model = openvino.Model([operations.matmul(inputs, weights, False, False)], [inputs])
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
    return core.compile_model(model, "CPU", settings).create_infer_request()
