"""A checkpoint and labelled pairs give a `Report`; a checkpoint and any pairs give verdicts.

The threshold is the checkpoint's own, chosen on validation: nothing here is chosen on the pairs that are reported,
but by `calibrate`, which is asked to.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs, load_pairs, need_both_labels
from qpairs.data.splits import duplicate_components, question_components
from qpairs.encoders.build import embed, token_ids, towers
from qpairs.models.bi_encoder import Checkpoint, Reference, load_checkpoint
from qpairs.objectives.pair_head import Score

log = logging.getLogger(__name__)

SCORED = 65_536  # pairs at a time
RETRIEVAL_LIMIT = 50_000  # questions; the retrieval scores compare all with all
SHIFTED = 0.15  # Kolmogorov-Smirnov distance from which on the old threshold should not be trusted
LENGTHS = ((0, 8, "up to 8 words"), (8, 15, "9 to 15 words"), (15, 10**9, "over 15 words"))
OVERLAPS = ((-1.0, 0.2, "word overlap up to 20 %"), (0.2, 0.5, "20 to 50 %"), (0.5, 1.0, "over 50 %"))

Interval = tuple[float, float]


@dataclass(frozen=True)
class Slice:
    """The verdict on the pairs of one kind."""

    kind: str
    name: str
    n: int
    duplicates: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Shift:
    """How far the similarities lie from those that the threshold was chosen on.

    Attributes:
        statistic: Kolmogorov-Smirnov distance, 0 to 1.
        p_value: of so large a distance by chance.
        differs: whether it is so large that the threshold should be fitted anew.
    """

    statistic: float
    p_value: float
    differs: bool


@dataclass(frozen=True)
class Report:
    """How well a checkpoint tells duplicates on a set of labelled pairs.

    Attributes:
        n, n_questions: pairs, and distinct questions.
        duplicates: share of duplicates.
        threshold: the frozen threshold that was applied.
        f1, precision, recall, accuracy: of the verdict at the threshold.
        average_precision, roc_auc: of the order of the similarities.
        f1_interval, precision_interval, recall_interval, accuracy_interval, average_precision_interval: 95 % by
            bootstrap over the components of the question graph.
        calibration_error: expected, over 15 bins of equal mass; brier: mean squared error of the probability.
        collapsed: the similarities do not vary; nothing else in the report means anything then.
        shift: distance to the pairs that the threshold was chosen on.
        baselines: what trivial answers get on the same pairs: name -> f1 and average_precision.
        slices: the verdict by length and by word overlap.
        retrieval: over the question table: mrr_at_10, recall_at_1, 5 and 10, mining_average_precision.
        scores, labels: (n,) similarity and label of each pair; not in the JSON form.
    """

    n: int
    n_questions: int
    duplicates: float
    threshold: float
    f1: float
    precision: float
    recall: float
    accuracy: float
    average_precision: float
    roc_auc: float
    f1_interval: Interval
    precision_interval: Interval
    recall_interval: Interval
    accuracy_interval: Interval
    average_precision_interval: Interval
    calibration_error: float
    brier: float
    collapsed: bool
    shift: Shift
    baselines: Mapping[str, Mapping[str, float]]
    slices: Sequence[Slice]
    retrieval: Mapping[str, float]
    scores: NDArray[np.float32] = field(repr=False, compare=False)
    labels: NDArray[np.int8] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON, without the arrays."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in ("scores", "labels")}


def as_checkpoint(model: Checkpoint | str | Path) -> Checkpoint:
    """A checkpoint, or the one in a folder."""
    return model if isinstance(model, Checkpoint) else load_checkpoint(model)


def as_pairs(data: Pairs | str | Path | Sequence[str | Path]) -> Pairs:
    """Pairs, or those of a source."""
    return data if isinstance(data, Pairs) else load_pairs(data)


Tables = tuple[NDArray[np.float32], NDArray[np.float32]]  # (n_questions, d) as first questions, and as second ones


def score_pairs(
    encoder: SentenceTransformer, pairs: Pairs, score: Score | None = None
) -> tuple[NDArray[np.float32], Tables]:
    """Scores (n_pairs,) of the pairs, and the embeddings of their questions, each encoded once by each tower.

    Args:
        encoder: one tower or two.
        pairs: labelled or not.
        score: what is read of the embeddings; without it, the cosine.
    """
    tables = embed_tables(encoder, pairs.questions)
    return score_tables(tables, pairs, score or Score()), tables


def embed_tables(encoder: SentenceTransformer, questions: Sequence[str]) -> Tables:
    """The embeddings of questions as first ones and as second ones; one tower gives one table twice."""
    query, document = towers(encoder)
    rows = embed(query, token_ids(query, questions))
    return rows, rows if document is query else embed(document, token_ids(document, questions))


def score_tables(tables: Tables, pairs: Pairs, score: Score) -> NDArray[np.float32]:
    """Scores (n_pairs,) of the pairs, of which the questions are embedded already; one tower gives one table twice."""
    rows, columns = tables
    first = torch.from_numpy(rows)
    second = first if columns is rows else torch.from_numpy(columns)
    ends = zip(*(torch.split(torch.from_numpy(side), SCORED) for side in (pairs.left, pairs.right)), strict=True)
    with torch.inference_mode():
        found = [score(first, second, left, right) for left, right in ends]
    return torch.cat([torch.empty(0), *found]).clamp(-1, 1).numpy()


def tfidf_scores(pairs: Pairs) -> NDArray[np.float32]:
    """(n_pairs,) TF-IDF cosine over character n-grams of 2 to 4 inside words; the trivial answer to beat."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        matrix = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit_transform(
            pairs.questions
        )
    except ValueError:  # no text has a single n-gram
        return np.zeros(len(pairs), dtype=np.float32)
    cosine = matrix[pairs.left].multiply(matrix[pairs.right]).sum(axis=1)
    return np.asarray(cosine, dtype=np.float32).ravel()


def evaluate(
    model: Checkpoint | str | Path, data: Pairs | str | Path | Sequence[str | Path], *, seed: int = 0
) -> Report:
    """Judges a checkpoint, at its own threshold, on labelled pairs.

    Args:
        model: a checkpoint, or its folder.
        data: labelled pairs, or their source.
        seed: of the bootstrap.

    Raises:
        UserError: the data cannot be used, or has pairs of one label only.
    """
    checkpoint, pairs = as_checkpoint(model), as_pairs(data)
    need_both_labels(pairs, "evaluate")
    return report(checkpoint, pairs, *score_pairs(checkpoint.encoder, pairs, checkpoint.score), seed=seed)


def report(
    checkpoint: Checkpoint,
    pairs: Pairs,
    scores: NDArray[np.float32],
    tables: Tables,
    *,
    seed: int = 0,
) -> Report:
    """The report on pairs that are scored already.

    Args:
        checkpoint: whose threshold and calibration are applied.
        pairs: labelled pairs.
        scores: (n_pairs,) their similarities.
        tables: embeddings of their questions, from `score_pairs`.
        seed: of the bootstrap.
    """
    threshold, labels = checkpoint.threshold, pairs.labels
    if not np.isfinite(scores).all():
        raise UserError("evaluate: the encoder gives similarities that are not numbers; the checkpoint is damaged")
    groups = question_components(pairs)[pairs.left]
    confusion = metrics.confusion(scores, labels, threshold)
    interval = metrics.bootstrap_interval(scores, labels, groups, threshold, seed=seed)
    probability = checkpoint.calibration.probability(scores)
    distance = metrics.distribution_shift(scores, checkpoint.reference.quantiles, checkpoint.reference.n)
    return Report(
        n=len(pairs),
        n_questions=len(pairs.questions),
        duplicates=pairs.duplicate_ratio,
        threshold=threshold,
        f1=confusion.f1,
        precision=confusion.precision,
        recall=confusion.recall,
        accuracy=confusion.accuracy,
        average_precision=metrics.average_precision(scores, labels),
        roc_auc=metrics.roc_auc(scores, labels),
        f1_interval=interval["f1"],
        precision_interval=interval["precision"],
        recall_interval=interval["recall"],
        accuracy_interval=interval["accuracy"],
        average_precision_interval=metrics.average_precision_interval(scores, labels, groups, seed=seed),
        calibration_error=metrics.expected_calibration_error(probability, labels),
        brier=metrics.brier(probability, labels),
        collapsed=metrics.is_collapsed(scores),
        shift=Shift(distance.statistic, distance.p_value, distance.p_value < 0.001 and distance.statistic > SHIFTED),
        baselines=baselines(pairs, checkpoint.tfidf_threshold),
        slices=slices(pairs, scores, threshold),
        retrieval=retrieval(pairs, tables, checkpoint.config.symmetric),
        scores=scores,
        labels=labels,
    )


def baselines(pairs: Pairs, tfidf_threshold: float) -> dict[str, dict[str, float]]:
    """F1 and average precision of answering "duplicate" always, and of TF-IDF at a threshold chosen on validation."""
    scores = tfidf_scores(pairs)
    return {
        "all duplicate": {
            "f1": metrics.all_duplicate_f1(pairs.labels),
            "average_precision": pairs.duplicate_ratio,
        },
        "TF-IDF": {
            "f1": metrics.confusion(scores, pairs.labels, tfidf_threshold).f1,
            "average_precision": metrics.average_precision(scores, pairs.labels),
        },
    }


def slices(pairs: Pairs, scores: NDArray[np.float32], threshold: float) -> list[Slice]:
    """The verdict by words of the longer question, and by word overlap (Jaccard); empty kinds are left out."""
    words = [set(q.lower().split()) for q in pairs.questions]
    lengths = np.array([len(q.split()) for q in pairs.questions])
    longer = np.maximum(lengths[pairs.left], lengths[pairs.right])
    overlap = np.array(
        [
            len(words[a] & words[b]) / max(1, len(words[a] | words[b]))
            for a, b in zip(pairs.left, pairs.right, strict=True)
        ]
    )
    result = []
    for kind, values, bounds in (("length", longer, LENGTHS), ("overlap", overlap, OVERLAPS)):
        for low, high, name in bounds:
            rows = (values > low) & (values <= high)
            if rows.any():
                c = metrics.confusion(scores[rows], pairs.labels[rows], threshold)
                ratio = float(np.mean(pairs.labels[rows] == 1))
                result.append(Slice(kind, name, int(rows.sum()), ratio, c.f1, c.precision, c.recall))
    return result


def retrieval(pairs: Pairs, tables: Tables, symmetric: bool = True) -> dict[str, float]:
    """Search for the duplicates of each question among all others, and mining of all, by cosine.

    Empty for too many questions, where the sides are of different kinds, and where no question has a duplicate.

    Args:
        pairs: labelled pairs.
        tables: embeddings of their questions, from `score_pairs`.
        symmetric: whether any question may be a query, and be found.
    """
    if len(pairs.questions) > RETRIEVAL_LIMIT or not symmetric:
        log.info("retrieval scores are left out: %d questions, symmetric: %s", len(pairs.questions), symmetric)
        return {}
    component = duplicate_components(pairs)
    if len(np.unique(component)) == len(component):
        return {}
    rows, columns = tables
    if columns is not rows:  # the inner product of these is the mean of both directions
        rows, columns = (np.concatenate(both, axis=1) / np.float32(np.sqrt(2)) for both in (tables, tables[::-1]))
    return {
        **metrics.retrieval_scores(rows, component, others=columns),
        "mining_average_precision": metrics.mining_average_precision(rows, component, others=columns),
    }


def cross_fitted(
    scores: NDArray[np.float32],
    labels: NDArray[np.int8],
    groups: NDArray[np.int64],
    prior: float | None = None,
    folds: int = 2,
) -> NDArray[np.bool_]:
    """Verdicts (n,) on pairs that a threshold is chosen on, without that advantage: each fold at the others' threshold.

    Args:
        scores: (n,) similarities.
        labels: (n,) labels.
        groups: (n,) component of each pair; folds share none.
        prior: the old threshold that `metrics.fit_threshold` shrinks towards.
        folds: into how many parts the components are dealt, at random with a fixed seed.
    """
    fold = np.random.default_rng(0).permutation(int(groups.max()) + 1)[groups] % folds
    verdict = np.zeros(len(scores), dtype=np.bool_)
    for k in np.unique(fold):
        here = fold == k
        rest = ~here if len(set(labels[~here].tolist())) == 2 else np.ones_like(here)
        verdict[here] = scores[here].astype(np.float64) >= metrics.fit_threshold(scores[rest], labels[rest], prior)
    return verdict


@dataclass(frozen=True)
class Verdicts:
    """What a checkpoint says of pairs: (n,) similarity, probability of being duplicates, and the answer."""

    similarity: NDArray[np.float32]
    probability: NDArray[np.float64]
    duplicate: NDArray[np.bool_]


def predict(model: Checkpoint | str | Path, pairs: Pairs) -> Verdicts:
    """The verdict on each pair at the checkpoint's threshold; labels are not read."""
    checkpoint = as_checkpoint(model)
    return verdicts(checkpoint, score_pairs(checkpoint.encoder, pairs, checkpoint.score)[0])


def verdicts(checkpoint: Checkpoint, scores: NDArray[np.float32]) -> Verdicts:
    """The verdicts on pairs that are scored already; scores (n,)."""
    return Verdicts(
        scores, checkpoint.calibration.probability(scores), scores.astype(np.float64) >= checkpoint.threshold
    )


@dataclass(frozen=True)
class Fit:
    """What fitting a threshold to a user's own pairs gave.

    Attributes:
        checkpoint: with the new threshold and calibration.
        n: pairs it was fitted on.
        f1_before, f1_after: on these pairs, at the old threshold, and at the new one by cross-fitting.
        interval: 95 % of f1_after.
        more_pairs: how many more labelled pairs would halve the interval.
    """

    checkpoint: Checkpoint
    n: int
    f1_before: float
    f1_after: float
    interval: Interval
    more_pairs: int


def calibrate(model: Checkpoint | str | Path, data: Pairs | str | Path | Sequence[str | Path], *, seed: int = 0) -> Fit:
    """Fits threshold and probability to labelled pairs of the user's own, without training.

    Both are shrunk towards the old ones when the pairs are few (see `metrics.fit_threshold`, `fit_calibration`).

    Args:
        model: a checkpoint, or its folder.
        data: a few dozen labelled pairs or more, or their source.
        seed: of the bootstrap.

    Raises:
        UserError: the data cannot be used, or has pairs of one label only.
    """
    old, pairs = as_checkpoint(model), as_pairs(data)
    need_both_labels(pairs, "calibrate")
    scores, _ = score_pairs(old.encoder, pairs, old.score)
    labels, groups = pairs.labels, question_components(pairs)[pairs.left]
    new = dataclasses.replace(
        old,
        threshold=metrics.fit_threshold(scores, labels, old.threshold),
        calibration=metrics.fit_calibration(scores, labels, old.calibration),
        operating_points=metrics.operating_points(scores, labels),
        reference=Reference(metrics.quantiles(scores), len(scores)),
        tfidf_threshold=metrics.best_threshold(tfidf_scores(pairs), labels),
    )
    verdict = cross_fitted(scores, labels, groups, old.threshold, folds=10)
    interval = metrics.bootstrap_interval(verdict, labels, groups, 0.5, seed=seed)["f1"]
    return Fit(
        checkpoint=dataclasses.replace(
            new, scores={**old.scores, "calibrated_on": {"n": len(pairs), "f1_interval": interval}}
        ),
        n=len(pairs),
        f1_before=metrics.confusion(scores, labels, old.threshold).f1,
        f1_after=metrics.confusion(verdict, labels, 0.5).f1,
        interval=interval,
        more_pairs=metrics.pairs_to_halve(len(pairs)),
    )
