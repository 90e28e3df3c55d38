"""Trivial baselines: what a model has to beat."""

from __future__ import annotations

import importlib.util

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
    """The best threshold of `tfidf_scores` on labelled pairs; None where scikit-learn is not installed."""
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


def _sklearn_installed() -> bool:
    return importlib.util.find_spec("sklearn") is not None
