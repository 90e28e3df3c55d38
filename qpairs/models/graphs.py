"""A graph over token ids, in ONNX: each core runs its own batches, of texts of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qpairs.core.cores import available_cores
from qpairs.core.extras import require
from qpairs.encoders.batches import Ints, by_length, padded
from qpairs.models.base import Floats
from qpairs.models.tokens import Tokens

GRAPH = "model.onnx"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"  # inputs of a graph, (n, width) each
BATCH_TOKENS = 256  # each batch being one core's: what a layer hands to the next stays in its cache
SLOW = ["SkipLayerNormFusion"]  # of ONNX Runtime: its kernel takes 10 times as long as sum and norm by themselves


FORMS = ("onnx", "onnx-int8", "openvino", "openvino-int8")  # of a graph: what runs it, and how it keeps its weights

Outputs = Callable[[Mapping[str, Ints]], Floats]


@dataclass(frozen=True)
class Engine:
    """Runs a graph, on one core per call; several threads may call it.

    Attributes:
        run: the inputs (n, width) each, by name, to the output (n, ...).
        inputs: the names of the graph's inputs.
        row: the shape of the output of one text.
    """

    run: Outputs
    inputs: Sequence[str]
    row: Sequence[int]


@dataclass(frozen=True)
class Graph:
    """A graph from the token ids of texts to one row of output for each. Several threads may share it.

    Attributes:
        engine: runs the graph.
        pool: the threads that run batches, one for each core.
        cores: their number.
        pad, pad_left: the id that fills up a batch, and whether it comes before the text.
    """

    engine: Engine
    pool: ThreadPoolExecutor
    cores: int
    pad: int
    pad_left: bool

    def run(self, tokens: Tokens, types: Ints | None = None) -> Floats:
        """The output (n, ...) of the graph for n texts, in their order.

        Args:
            tokens: of the texts.
            types: (tokens,) the type of each token, for graphs that have this input.
        """
        lengths = np.diff(tokens.bounds)
        output = np.empty((len(lengths), *self.engine.row), dtype=np.float32)
        kinds = Tokens(types, tokens.bounds) if types is not None and TYPES in self.engine.inputs else None

        def run(rows: Ints) -> None:
            ids, mask = padded(tokens.of(rows), lengths[rows], self.pad, self.pad_left)
            inputs: Mapping[str, Ints] = {IDS: ids, MASK: mask}
            if kinds is not None:
                inputs = {**inputs, TYPES: padded(kinds.of(rows), lengths[rows], 0, self.pad_left)[0]}
            output[rows] = self.engine.run(inputs)

        share = math.ceil(lengths.sum() / self.cores)  # of few texts, so that no core waits for another
        list(self.pool.map(run, by_length(lengths, min(BATCH_TOKENS, share))))
        return output


def open_graph(folder: Path, form: str = "onnx", *, pad: int, pad_left: bool) -> Graph:
    """The graph in a folder.

    Args:
        folder: where `model.onnx` is.
        form: one of `FORMS`.
        pad: the id that fills up a batch.
        pad_left: whether it comes before the text.

    Raises:
        UserError: its runtime is not installed.
    """
    cores = available_cores()
    if form.startswith("openvino"):
        from qpairs.models.openvino import open_openvino

        engine = open_openvino(folder / GRAPH, cores, int8=form.endswith("int8"))
    else:
        engine = _open_onnx(folder)
    return Graph(engine, ThreadPoolExecutor(cores), cores, pad, pad_left)


def _open_onnx(folder: Path) -> Engine:
    onnxruntime = require("onnxruntime", f"{folder}: an ONNX export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        folder / GRAPH, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW
    )
    return Engine(
        lambda inputs: session.run(None, dict(inputs))[0],
        [each.name for each in session.get_inputs()],
        session.get_outputs()[0].shape[1:],
    )
