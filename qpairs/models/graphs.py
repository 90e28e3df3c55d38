"""An ONNX graph over token ids: each core runs batches of its own, of texts of about one length."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qpairs.core.extras import require
from qpairs.encoders.batches import Ints, by_length, padded
from qpairs.models.base import Floats
from qpairs.models.tokens import Tokens

GRAPH = "model.onnx"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"  # inputs of a graph, (n, width) each
BATCH_TOKENS = 256  # each batch being one core's: what a layer hands to the next stays in its cache


@dataclass(frozen=True)
class Graph:
    """A graph from the token ids of texts to one row of output for each. Several threads may share it.

    Attributes:
        session: of ONNX Runtime, with one thread for a run.
        pool: the threads that run batches, one for each core.
        cores: their number.
        pad, pad_left: the id that fills up a batch, and whether it comes before the text.
    """

    session: Any
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
        output = np.empty((len(lengths), *self.session.get_outputs()[0].shape[1:]), dtype=np.float32)
        known = {each.name for each in self.session.get_inputs()}
        kinds = Tokens(types, tokens.bounds) if types is not None and TYPES in known else None

        def run(rows: Ints) -> None:
            ids, mask = padded(tokens.of(rows), lengths[rows], self.pad, self.pad_left)
            inputs: Mapping[str, Ints] = {IDS: ids, MASK: mask}
            if kinds is not None:
                inputs = {**inputs, TYPES: padded(kinds.of(rows), lengths[rows], 0, self.pad_left)[0]}
            output[rows] = self.session.run(None, inputs)[0]

        share = math.ceil(lengths.sum() / self.cores)  # of few texts, so that no core waits for another
        list(self.pool.map(run, by_length(lengths, min(BATCH_TOKENS, share))))
        return output


def open_graph(folder: Path, *, pad: int, pad_left: bool) -> Graph:
    """The graph in a folder.

    Args:
        folder: where `model.onnx` is.
        pad: the id that fills up a batch.
        pad_left: whether it comes before the text.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    onnxruntime = require("onnxruntime", f"{folder}: an ONNX export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    cores = available_cores()
    return Graph(session, ThreadPoolExecutor(cores), cores, pad, pad_left)


def available_cores() -> int:
    """The cores that this process may use, or as many as OMP_NUM_THREADS says."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux alone
    return int(asked) if asked.isdigit() else len(affinity(0)) if affinity else os.cpu_count() or 1
