"""A tower of an encoder as an ONNX graph, in 32 or 8 bits, for ONNX Runtime or OpenVINO."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from qpairs.core.exceptions import UserError
from qpairs.encoders.readers import reader_of
from qpairs.encoders.tokens import unpooled_prompt
from qpairs.models.graphs import GRAPH

OPSET = 17
QUANTISED = ("MatMul", "Gemm", "LSTM")
INT8 = ("MatMulInteger", "DynamicQuantizeLSTM")  # what becomes of them


class _Graph(nn.Module):
    """Token ids and mask (n, width) to unit vectors (n, dimension)."""

    def __init__(self, tower: SentenceTransformer) -> None:
        super().__init__()
        self.tower = tower
        self.apply_first = reader_of(tower).apply
        self.left_out = unpooled_prompt(tower)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features = self.apply_first(input_ids, attention_mask)
        if self.left_out:  # what the pooling does with `prompt_length` depends on the values, which a graph cannot
            features["attention_mask"] = attention_mask * (attention_mask.cumsum(1) > self.left_out)
        for module in list(self.tower)[1:]:
            features = module(features)
        dimension = self.tower.get_embedding_dimension() or -1
        return features["sentence_embedding"].reshape(-1, dimension)  # where one token is pooled, it is not traced


def write_graph(tower: SentenceTransformer, folder: Path) -> None:
    """Writes a tower as a graph: `input_ids` and `attention_mask` (n, width) to `vectors` (n, dimension).

    Raises:
        UserError: PyTorch cannot write its operations as a graph, such as the attention masks of Gemma 3.
    """
    modes = {module.pooling_mode for module in tower if isinstance(module, Pooling)}
    if modes & {"weightedmean"} and unpooled_prompt(tower):
        raise UserError(
            "export: a weighted mean that leaves out the prompt cannot be written as an ONNX graph; choose --format "
            "static, or use the checkpoint itself"
        )
    ids = torch.ones((2, 5), dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    free = {0: "texts", 1: "width"}
    with silent(), torch.inference_mode():
        graph = _Graph(tower)
        try:
            torch.onnx.export(
                graph,
                (ids, mask),
                folder / GRAPH,
                input_names=["input_ids", "attention_mask"],
                output_names=["vectors"],
                dynamic_axes={"input_ids": free, "attention_mask": free, "vectors": {0: "texts"}},
                opset_version=OPSET,
                dynamo=False,  # the other exporter cannot trace an LSTM
            )
        except (RuntimeError, OnnxExporterError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"export: PyTorch cannot write this encoder as an ONNX graph ({reason}); choose --format static, or "
                "use the checkpoint itself"
            ) from error


def has_lstm(graph: Path) -> bool:
    """Whether there is an LSTM in a graph: OpenVINO 2026.4 turns its vectors, down to a cosine of 0.985."""
    import onnx

    return any(node.op_type == "LSTM" for node in onnx.load(graph).graph.node)


def quantise(graph: Path, form: str) -> bool:
    """Puts the weights of matrix products into 8 bits, a scale for each column; whether there were any.

    Args:
        graph: an ONNX file, which is replaced.
        form: onnx-int8 or openvino-int8: each reads weights in 8 bits in its own way.
    """
    return _shrink(graph) if form == "openvino-int8" else _quantise(graph)


def _shrink(graph: Path) -> bool:
    """Weights in 8 bits, which OpenVINO multiplies by activations that it puts into 8 bits itself.

    Each row of a layer's activations gets scales of its own there, so that an outlier costs its neighbours alone.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    weights = {each.name: each for each in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    for name in dict.fromkeys(node.input[1] for node in products):
        whole = numpy_helper.to_array(weights[name])  # (inputs, outputs)
        scale = np.maximum(np.abs(whole).max(axis=0), np.finfo(np.float32).tiny) / 127
        parts = {f"{name}_int8": np.round(whole / scale).astype(np.int8), f"{name}_scale": scale.astype(np.float32)}
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.extend(numpy_helper.from_array(value, part) for part, value in parts.items())
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", list(parts), [name], axis=1))
    onnx.save(model, graph)
    return bool(products)


def _quantise(graph: Path) -> bool:
    """Weights of products and LSTMs for ONNX Runtime.

    7 of the bits are used, because products of all 8 overflow on processors without VNNI.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    whole = graph.with_suffix(".fp32")
    graph.rename(whole)
    with silent():
        quantize_dynamic(
            whole,
            graph,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
    whole.unlink()
    return any(node.op_type in INT8 for node in onnx.load(graph).graph.node)


@contextmanager
def silent() -> Iterator[None]:
    """Keeps the exporters' own messages off the terminal."""
    level, stderr = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)  # torch writes there by itself
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logging.disable(level)
