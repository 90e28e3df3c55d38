"""Predictions: a model and pairs, labelled or not, give scores, probabilities and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpairs.core.tables import check_table_path, write_table
from qpairs.data.pairs import Pairs
from qpairs.data.sources import load_pairs_and_table
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name
from qpairs.models.verdict import Setting, score_column


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for pairs.

    Attributes:
        similarity: (n,) score of each pair: a cosine, or what else the verdict of the model reads.
        probability: (n,) of being duplicates.
        duplicate: (n,) whether it is called a duplicate.
    """

    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    duplicate: NDArray[np.bool_]


def predict(model: Model | str | Path, pairs: Pairs) -> Predictions:
    """Predictions for pairs as people hand them over; labels are not read.

    Args:
        model: a model, or its folder.
        pairs: labelled or not.

    Example, where `model` is a model or its folder:

    >>> asked = qpairs.pairs_from_texts(["How do I pay?", "Who?"], ["How can I pay?", "How do I pay?"], [-1, -1])
    >>> predict(model, asked).duplicate.tolist()
    [True, False]
    """
    model = as_model(model)
    model.verdict.require_labelled(shown_name(model))
    return predictions(model.verdict.pair, model.score_pairs(pairs)[0])


def predictions(setting: Setting, scores: NDArray[np.float32]) -> Predictions:
    """Predictions for pairs that are scored already.

    >>> from qpairs.metrics import Calibration
    >>> from qpairs.models.verdict import PairSetting
    >>> setting = PairSetting(0.5, Calibration(slope=10.0, intercept=-5.0))
    >>> predictions(setting, np.array([0.4, 0.9], dtype=np.float32)).duplicate.tolist()
    [False, True]
    """
    return Predictions(scores, setting.probability(scores), setting.decide(scores))


def predict_file(
    model: Model | str | Path, source: str | Path, output: Path, *, columns: Sequence[str] = ()
) -> Predictions:
    """Writes a table of pairs again, with the columns similarity, probability and duplicate (0 or 1) added.

    The first is called score where it is the logit of a cross-encoder, or the log odds of a model of two stages.

    Args:
        model: a model, or its folder.
        source: a file of pairs, or another source; labels are not needed.
        output: a .csv, .tsv, .jsonl or .parquet file.
        columns: the two text columns, where their names are unusual.

    Raises:
        UserError: the source cannot be used, or the output cannot be written.
    """
    check_table_path(output)
    model = as_model(model)
    model.verdict.require_labelled(shown_name(model))
    pairs, table = load_pairs_and_table(source, columns=columns)
    found = predict(model, pairs)
    added = {
        score_column(model.verdict.score): found.similarity,
        "probability": found.probability,
        "duplicate": found.duplicate.astype(int),
    }
    write_table(output, table.frame.assign(**added))
    return found
