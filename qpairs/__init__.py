"""qpairs: tells whether two questions ask the same thing, and finds the duplicates in a pile of them.

>>> import qpairs
>>> model = qpairs.train(data="sample", encoder="static")
>>> qpairs.evaluate(model, "more_pairs.csv").f1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qpairs.config import Config
    from qpairs.core.exceptions import UserError
    from qpairs.data.pairs import Pairs, load_pairs, pairs_from_texts
    from qpairs.data.splits import split_pairs
    from qpairs.evaluation.calibrate import calibrate
    from qpairs.evaluation.evaluate import Report, evaluate
    from qpairs.evaluation.predict import predict
    from qpairs.evaluation.robustness import probe
    from qpairs.experiments.compare import Comparison, compare
    from qpairs.export.export import Parity, export_checkpoint
    from qpairs.models.base import Encoder, Model, load
    from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
    from qpairs.retrieval.dedupe import dedupe, search
    from qpairs.retrieval.embeddings import Embeddings, embed, open_shards
    from qpairs.retrieval.index import build_index, open_index
    from qpairs.training.fit import train

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "models.bi_encoder",
    "Comparison": "experiments.compare",
    "Config": "config",
    "Embeddings": "retrieval.embeddings",
    "Encoder": "models.base",
    "Model": "models.base",
    "Pairs": "data.pairs",
    "Parity": "export.export",
    "Report": "evaluation.evaluate",
    "UserError": "core.exceptions",
    "build_index": "retrieval.index",
    "calibrate": "evaluation.calibrate",
    "compare": "experiments.compare",
    "dedupe": "retrieval.dedupe",
    "embed": "retrieval.embeddings",
    "evaluate": "evaluation.evaluate",
    "export_checkpoint": "export.export",
    "load": "models.base",
    "load_checkpoint": "models.bi_encoder",
    "load_pairs": "data.pairs",
    "open_index": "retrieval.index",
    "open_shards": "retrieval.embeddings",
    "pairs_from_texts": "data.pairs",
    "predict": "evaluation.predict",
    "probe": "evaluation.robustness",
    "save_checkpoint": "models.bi_encoder",
    "search": "retrieval.dedupe",
    "split_pairs": "data.splits",
    "train": "training.fit",
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
