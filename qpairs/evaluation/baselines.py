"""Baselines: what a model has to beat."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.data.pairs import Pairs


def tfidf_scores(pairs: Pairs) -> NDArray[np.float32]:
    """(n_pairs,) TF-IDF cosine over character n-grams of 2 to 4 inside words; needs scikit-learn.

    >>> from qpairs.data.pairs import pairs_from_texts
    >>> tfidf_scores(pairs_from_texts(["reset my password"], ["Reset my password"], [-1])).round(3).tolist()
    [1.0]
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        matrix = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit_transform(
            pairs.questions
        )
    except ValueError:  # no text has a single n-gram
        return np.zeros(len(pairs), dtype=np.float32)
    cosine = matrix[pairs.left].multiply(matrix[pairs.right]).sum(axis=1)
    return np.asarray(cosine, dtype=np.float32).ravel()


def tfidf_threshold(pairs: Pairs) -> float | None:
    """The best threshold of `tfidf_scores` on labelled pairs; None if scikit-learn is not installed."""
    return metrics.best_threshold(tfidf_scores(pairs), pairs.labels) if _sklearn_installed() else None


def baselines(pairs: Pairs, tfidf_threshold: float | None) -> dict[str, dict[str, float]]:
    """F1 and average precision of calling every pair a duplicate, and of TF-IDF at a threshold chosen on validation.

    TF-IDF is left out without such a threshold, or without scikit-learn.
    """
    found = {
        "all duplicate": {"f1": metrics.all_duplicate_f1(pairs.labels), "average_precision": pairs.duplicate_ratio}
    }
    if tfidf_threshold is not None and _sklearn_installed():
        scores = tfidf_scores(pairs)
        found["TF-IDF"] = {
            "f1": metrics.confusion(scores, pairs.labels, tfidf_threshold).f1,
            "average_precision": metrics.average_precision(scores, pairs.labels),
        }
    return found


UNTRAINED = "encoder as it comes"  # the baseline of a trained encoder
IN_WORDS = {  # a baseline -> what it does
    "all duplicate": "calling everything a duplicate",
    UNTRAINED: f"the {UNTRAINED}",
}


def trivial_note(report: Mapping[str, Any]) -> str:
    """Which baselines a model is no better than, as the end of a sentence; empty if it is better than all.

    A model is better if the whole 95 % interval of its F1 is above the F1 of the baseline, and its ranking is better
    than a random one if the interval of its average precision is above the share of duplicates.

    Args:
        report: `f1`, `f1_interval`, `average_precision_interval`, `duplicates` and `baselines`, as in `Report`.

    >>> trivial_note({"f1": 0.53, "f1_interval": (0.45, 0.6), "average_precision_interval": (0.5, 0.6),
    ...               "duplicates": 0.37, "baselines": {"all duplicate": {"f1": 0.54}}})
    'no better than calling everything a duplicate (F1 0.54)'
    """
    low, f1 = report["f1_interval"][0], report["f1"]
    equal = {name: values["f1"] for name, values in report["baselines"].items() if low <= values["f1"]}
    named = [f"{IN_WORDS.get(name, name)} (F1 {value:.2f})" for name, value in equal.items()]
    if report["average_precision_interval"][0] <= report["duplicates"]:
        named.append(f"a random ranking (average precision {report['duplicates']:.2f})")
    if not named:
        return ""
    by_chance = ", as far as these pairs can tell" if equal and f1 > max(equal.values()) else ""
    return f"no better than {' or '.join(named)}{by_chance}"


def _sklearn_installed() -> bool:
    return importlib.util.find_spec("sklearn") is not None
