"""Predictions: a model and pairs, labelled or not, give scores, probabilities and decisions."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.core.tables import check_table_path, write_table
from qpairs.data.records import name_of
from qpairs.data.sources import PairSource, load_pair_table
from qpairs.models.base import Model, as_model
from qpairs.models.predictions import THRESHOLD_SERVES, predict_pairs
from qpairs.models.predictions import Predictions as Predictions
from qpairs.models.predictions import predictions as predictions
from qpairs.models.ready import shown_name
from qpairs.models.verdict import score_column

log = logging.getLogger(__name__)


def predict(
    model: Model | str | Path,
    pairs: PairSource,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    columns: str | Sequence[str] = (),
    skip_bad_rows: bool = False,
    on_progress: OnProgress = ignore,
) -> Predictions:
    """Predictions for given pairs; labels are not read.

    Args:
        model: a model, or its folder.
        pairs: labelled or not, or their source, as in `load_pairs`, such as a list of (question1, question2).
        threshold: the lowest score of a duplicate; without it, that of the model.
        precision: that the duplicates must have on pairs like those of validation, as a one-sided 95 % lower bound,
            instead of a threshold.
        columns: as in `load_pairs`, and so
        skip_bad_rows: whether rows that cannot be used are left out.
        on_progress: the stages encoding (questions) and reading pairs.

    Raises:
        UserError: the pairs cannot be used, or the precision cannot be promised.

    Example, where `model` is a model or its folder:

    >>> predict(model, [("How do I pay?", "How can I pay?"), ("Who?", "How do I pay?")]).duplicate.tolist()
    [True, False]
    """
    return predict_pairs(
        as_model(model),
        pairs,
        threshold=threshold,
        precision=precision,
        columns=columns,
        skip_bad_rows=skip_bad_rows,
        on_progress=on_progress,
    )


def predict_file(
    model: Model | str | Path,
    source: PairSource,
    output: Path,
    *,
    columns: Sequence[str] = (),
    threshold: float | None = None,
    precision: float | None = None,
    skip_bad_rows: bool = False,
    on_progress: OnProgress = ignore,
) -> Predictions:
    """Writes a table of pairs with the columns similarity, probability and duplicate (0 or 1) added.

    The first is called score if it is the logit of a cross-encoder, or the log odds of a model of two stages. All rows
    stay, in order: the new columns are empty in a row without two questions, which `pairs.skipped` counts. No column is
    replaced: a new column whose name exists is called predicted_NAME, and a warning is logged.

    Args:
        model: a model, or its folder.
        source: a file of pairs, or another source, as in `load_pairs`; labels are not needed.
        output: a .csv, .tsv, .jsonl or .parquet file; a .csv file has the separator of a .csv source.
        columns: the two text columns, if their names are unusual.
        threshold: as in `predict`, and so
        precision: instead of it.
        skip_bad_rows: leave out malformed rows, and log how many; without it, the first one is an error.
        on_progress: the stages reading, encoding (questions) and reading pairs.

    Returns:
        The predictions for the rows that have two questions.

    Raises:
        UserError: the source cannot be used, the output cannot be written, or as `predict`.
    """
    check_table_path(output)
    model = as_model(model)
    if threshold is None:
        model.verdict.require_labelled(shown_name(model), THRESHOLD_SERVES)  # before the file is read
    on_progress(Progress("reading"))
    given = load_pair_table(source, columns=columns, skip_bad_rows=skip_bad_rows)
    where = source if isinstance(source, str | Path) else name_of(source)
    if given.table.malformed:
        log.warning("%s: rows left out: %d malformed", where, given.table.malformed)
    found = predict(model, given.pairs, threshold=threshold, precision=precision, on_progress=on_progress)
    frame = given.table.frame
    results: dict[str, NDArray[Any]] = {
        score_column(model.verdict.score): found.similarity,
        "probability": found.probability,
        "duplicate": found.duplicate.astype(int),
    }
    called = result_names(list(map(str, frame.columns)), list(results))
    for name, new in called.items():
        if new != name:
            log.warning("%s: already has a column %r; the result is in the column %r", where, name, new)
    added = {called[name]: _spread(values, given.usable) for name, values in results.items()}
    write_table(output, frame.assign(**added), raw=True, dialect=given.table.dialect)
    return found


def result_names(taken: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """The names of the result columns in a table; existing names are compared without case.

    >>> result_names(["question1", "question2", "Duplicate"], ["probability", "duplicate"])
    {'probability': 'probability', 'duplicate': 'predicted_duplicate'}
    """
    lower, called = {name.lower() for name in taken}, dict[str, str]()
    for name in wanted:
        more = (f"predicted_{name}{number or ''}" for number in itertools.count())
        called[name] = next(new for new in itertools.chain([name], more) if new.lower() not in lower)
        lower.add(called[name].lower())
    return called


def _spread(values: NDArray[Any], rows: NDArray[np.bool_]) -> Any:
    """Values (k,) in the k rows of a mask (n,), and missing values in the others: (n,)."""
    import pandas

    if rows.all():
        return values
    whole = pandas.array(np.zeros(len(rows), values.dtype), dtype=pandas.Series(values).convert_dtypes().dtype)
    whole[rows], whole[~rows] = values, pandas.NA
    return whole
