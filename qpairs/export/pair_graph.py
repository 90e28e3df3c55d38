"""A cross-encoder -> an ONNX graph, in 32 or 8 bits, and how far its logits are from those of the cross-encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.encoders.readers import reader_of, save_tokenizer
from qpairs.export.onnx import OPSET, quantise, silent
from qpairs.export.parity import PairParity
from qpairs.export.static import f1_of
from qpairs.models.graphs import GRAPH, IDS, MASK, TYPES
from qpairs.models.pair_graph import PairReading
from qpairs.models.pair_reader import PairReader


class _PairGraph(nn.Module):
    """What the tokenizer gives for n pairs, (n, width) each, to logits (n,)."""

    def __init__(self, model: CrossEncoder, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        features: Any = dict(zip(self.inputs, tensors, strict=True))
        for module in self.model:
            features = module(features)
        logits: Tensor = features["scores"].reshape(-1)
        return logits


def write_pair_graph(model: CrossEncoder, folder: Path, form: str) -> PairReading:
    """Writes the graph of a cross-encoder and its tokenizer into a folder; the model stays as it is.

    The graph takes `input_ids`, `attention_mask` and, where the tokenizer gives them, `token_type_ids`, (n, width)
    each, to `logits` (n,).

    Args:
        model: of one logit.
        folder: an existing one; it gets `model.onnx` and `tokenizer.json`.
        form: one of `models.graphs.FORMS`.

    Returns:
        What `models.pair_graph.open_pair_graph` needs to read the folder.

    Raises:
        UserError: the model has several logits or a prompt, or its tokenizer cannot be written.
    """
    if model.num_labels != 1:
        raise UserError(f"export: a cross-encoder of one logit is needed; this one has {model.num_labels}")
    if model.default_prompt_name is not None:
        raise UserError("export: a cross-encoder with a prompt cannot be exported")
    save_tokenizer(model, folder)
    plain = copy.deepcopy(model).to("cpu", torch.float32).eval()
    transformer: Any = plain[0]
    transformer.model.set_attn_implementation("eager")  # plain products, the fastest in ONNX Runtime
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    example = {IDS: torch.ones((2, 5), dtype=torch.int64), MASK: mask, TYPES: torch.tensor([[0, 0, 0, 1, 1]] * 2)}
    inputs = [name for name in example if name in model.preprocess([("a", "b")])]
    free = {0: "pairs", 1: "width"}
    with silent(), torch.inference_mode():
        torch.onnx.export(
            _PairGraph(plain, inputs),
            tuple(example[name] for name in inputs),
            folder / GRAPH,
            input_names=inputs,
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(inputs, free), "logits": {0: "pairs"}},
            opset_version=OPSET,
            dynamo=False,
        )
    if form.endswith("int8"):
        quantise(folder / GRAPH, form)
    reader = reader_of(model)
    return PairReading(pad=reader.pad, pad_left=reader.pad_left)


def compare_readers(before: PairReader, after: PairReader, pairs: Pairs) -> PairParity:
    """How two forms of a cross-encoder compare on labelled pairs.

    Args:
        before: the cross-encoder.
        after: its export.
        pairs: of both labels.

    Raises:
        UserError: the pairs are not of both labels.
    """
    need_both_labels(pairs, "export")
    texts = [pairs.texts(row) for row in range(len(pairs))]
    old, new = (reader.logits(texts) for reader in (before, after))
    difference = np.abs(old - new)
    return PairParity(
        n=len(pairs),
        difference_mean=float(difference.mean()),
        difference_max=float(difference.max()),
        f1_before=f1_of(old, pairs),
        f1_after=f1_of(new, pairs),
        average_precision_before=metrics.average_precision(old, pairs.labels),
        average_precision_after=metrics.average_precision(new, pairs.labels),
    )
