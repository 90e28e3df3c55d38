"""A cross-encoder as an ONNX graph: it scores pairs without torch, transformers or sentence-transformers."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from qpairs.core.exceptions import UserError
from qpairs.models.base import TOKENIZER, Floats
from qpairs.models.graphs import Graph, open_graph
from qpairs.models.pair_reader import PairReader, without_long_ends
from qpairs.models.tokens import concatenated

WINDOW = 2048  # pairs that are tokenised and sorted by length at a time


@dataclass(frozen=True)
class PairReading:
    """How the graph of a cross-encoder reads pairs; its `tokenizer.json` has the longest pair and how it is cut.

    Attributes:
        pad: the id that fills up a batch.
        pad_left: whether it comes before the pair.
    """

    pad: int = 0
    pad_left: bool = False


@dataclass(frozen=True)
class PairGraph:
    """A cross-encoder as an ONNX graph: a `PairReader`.

    Attributes:
        tokenizer: of pairs; it adds special tokens and cuts long pairs.
        graph: from the token ids of pairs to logits.
    """

    tokenizer: Tokenizer
    graph: Graph

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Logits (n,) that pairs are duplicates, in their order: the mean over both orders of each pair.

        Within a window, a pair that occurs twice, in either order, is read only once in each order.
        """
        windows = (pairs[start : start + WINDOW] for start in range(0, len(pairs), WINDOW))
        return np.concatenate([np.empty(0, np.float32), *map(self._window, windows)])

    def _window(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """The logits (n,) of pairs that are tokenised together."""
        if cut := self.tokenizer.truncation:
            pairs = without_long_ends(pairs, cut["max_length"], self._ends)
        orders = itertools.chain.from_iterable(((a, b), (b, a)) for a, b in pairs)
        rows = {order: row for row, order in enumerate(dict.fromkeys(orders))}
        found = self.tokenizer.encode_batch_fast(list(rows))
        types = np.fromiter(itertools.chain.from_iterable(each.type_ids for each in found), np.int64)
        logits = self.graph.run(concatenated([each.ids for each in found]), types)
        both = np.array([(rows[a, b], rows[b, a]) for a, b in pairs])  # (n, 2)
        mean: Floats = logits[both].mean(axis=1)
        return mean

    @functools.cached_property
    def _whole(self) -> Tokenizer:
        """The tokenizer without truncation."""
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    def _ends(self, texts: list[str]) -> list[list[int]]:
        found = self._whole.encode_batch(texts, add_special_tokens=False)
        return [[end for _, end in each.offsets] for each in found]


def open_pair_graph(folder: Path, reading: PairReading, form: str = "onnx") -> PairReader:
    """The cross-encoder whose graph and tokenizer are in a folder.

    Args:
        folder: where `export.pair_graph.write_pair_graph` wrote them.
        reading: what it returned.
        form: one of `graphs.FORMS`.

    Raises:
        UserError: the runtime of the graph is not installed, or the folder cannot be read.

    >>> reader = open_pair_graph(Path("runs/fast/reranker"), PairReading())  # doctest: +SKIP
    >>> reader.logits([("Is it free?", "What does it cost?")]).shape  # doctest: +SKIP
    (1,)
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        return PairGraph(tokenizer, open_graph(folder, form, pad=reading.pad, pad_left=reading.pad_left))
    except UserError:
        raise
    except Exception as error:  # whatever tokenizers, ONNX Runtime and OpenVINO raise
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded: {reason}") from error
