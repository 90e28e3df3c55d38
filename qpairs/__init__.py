"""qpairs: tells whether two questions ask the same thing, and finds the duplicates in a pile of them.

>>> import qpairs
>>> model = qpairs.train(data="sample", encoder="static")
>>> qpairs.evaluate(model, "more_pairs.csv").f1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qpairs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from qpairs.comparison import Comparison, compare
    from qpairs.config import Config
    from qpairs.evaluation import Report, calibrate, evaluate, predict
    from qpairs.export import Parity, export_checkpoint
    from qpairs.faults import UserError
    from qpairs.index import build_index, open_index
    from qpairs.pairs import Pairs, load_pairs, pairs_from_texts
    from qpairs.retrieval import dedupe, search
    from qpairs.robustness import probe
    from qpairs.runtime import Encoder, Model, load
    from qpairs.shards import Embeddings, embed, open_shards
    from qpairs.splits import split_pairs
    from qpairs.training import train

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "checkpoint",
    "Comparison": "comparison",
    "Config": "config",
    "Embeddings": "shards",
    "Encoder": "runtime",
    "Model": "runtime",
    "Pairs": "pairs",
    "Parity": "export",
    "Report": "evaluation",
    "UserError": "faults",
    "build_index": "index",
    "calibrate": "evaluation",
    "compare": "comparison",
    "dedupe": "retrieval",
    "embed": "shards",
    "evaluate": "evaluation",
    "export_checkpoint": "export",
    "load": "runtime",
    "load_checkpoint": "checkpoint",
    "load_pairs": "pairs",
    "open_index": "index",
    "open_shards": "shards",
    "pairs_from_texts": "pairs",
    "predict": "evaluation",
    "probe": "robustness",
    "save_checkpoint": "checkpoint",
    "search": "retrieval",
    "split_pairs": "splits",
    "train": "training",
}

__all__ = [
    "Checkpoint",
    "Comparison",
    "Config",
    "Embeddings",
    "Encoder",
    "Model",
    "Pairs",
    "Parity",
    "Report",
    "UserError",
    "build_index",
    "calibrate",
    "compare",
    "dedupe",
    "embed",
    "evaluate",
    "export_checkpoint",
    "load",
    "load_checkpoint",
    "load_pairs",
    "open_index",
    "open_shards",
    "pairs_from_texts",
    "predict",
    "probe",
    "save_checkpoint",
    "search",
    "split_pairs",
    "train",
]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, when it is asked for: `import qpairs` itself loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'qpairs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"qpairs.{_HOMES[name]}"), name)
