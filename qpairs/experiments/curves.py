"""A learning curve: means with intervals, a fitted power law, its predictions, and their error so far.

Two things make a score uncertain: which questions are evaluated, and which pairs and seed a run was given. The
evaluated components are resampled, the same ones for all runs, since a hard question is hard for all of them. The runs
of a size differ by their standard deviation; where the points lie further from the curve than that explains, the law is
not quite true, and their spread is taken to be as large as the distance (Birge 1932, The calculation of errors by the
method of least squares).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.experiments.cells import Arrays, Interval, Record
from qpairs.metrics import PowerLaw
from qpairs.metrics.power_law import LEAST_SIZES

MEASURES = {"f1": "F1", "average_precision": "average precision"}  # what a curve is of -> in words
FACTORS = (2, 4)  # how many times the pairs are predicted
SAMPLES = 500
LEVEL = (0.025, 0.975)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """The score of a number of training pairs: mean over the runs, 95 % interval, and each run."""

    pairs: int
    mean: float
    interval: Interval
    values: Sequence[float]


@dataclass(frozen=True)
class Prediction:
    """What the curve predicts for more pairs than there are.

    Attributes:
        pairs: training pairs.
        value, interval: the score, with 95 % interval.
        gain, gain_interval: the gain over the curve at the present number of pairs.
    """

    pairs: int
    value: float
    interval: Interval
    gain: float
    gain_interval: Interval


@dataclass(frozen=True)
class Backtest:
    """What the curve would have predicted for all pairs from half of them.

    Attributes:
        fitted_to: the largest size it was fitted to.
        pairs: all pairs.
        predicted: the score that it predicts for these.
        found: their mean.
        error, error_interval: found less predicted, with 95 % interval.
    """

    fitted_to: int
    pairs: int
    predicted: float
    found: float
    error: float
    error_interval: Interval


@dataclass(frozen=True)
class Curve:
    """A measure against the number of training pairs.

    Attributes:
        measure: a key of `MEASURES`.
        points: by rising size.
        law: fitted to their means.
        predictions: for each of `FACTORS`.
        backtest: None if there are too few sizes below half of the pairs.
    """

    measure: str
    points: Sequence[Point]
    law: PowerLaw
    predictions: Sequence[Prediction]
    backtest: Backtest | None

    @property
    def in_words(self) -> str:
        """The gain from twice the pairs."""
        twice, (low, high) = self.predictions[0], self.predictions[0].gain_interval
        return (
            f"twice the pairs ({twice.pairs:,}) would add {twice.gain:.3f} {MEASURES[self.measure]} ({low:.3f} to "
            f"{high:.3f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The curve as plain values for JSON."""
        law = {"limit": self.law.limit, "gap": self.law.gap, "exponent": self.law.exponent}
        return {
            "points": [asdict(point) for point in self.points],
            "law": {name: float(value) for name, value in law.items()} | {"reference": self.law.reference},
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "backtest": self.backtest and asdict(self.backtest),
            "in_words": self.in_words,
        }


@dataclass(frozen=True)
class Runs:
    """The runs of the sizes of one curve, resampled.

    Attributes:
        sizes: s numbers of training pairs, rising.
        scores: of each size (1 + samples, runs), the first row without resampling.
    """

    sizes: Sequence[int]
    scores: Sequence[Floats]

    @property
    def means(self) -> Floats:
        """(1 + samples, s) means over the runs."""
        means: Floats = np.stack([scores.mean(axis=1) for scores in self.scores], axis=1)
        return means

    def variances(self) -> Floats:
        """(s,) of the mean of each size over other runs.

        The spread of a few runs tells little, so it is taken half from those of the size, half from those of all. It is
        1 for each size, where no size has several runs.
        """
        spreads = [float(np.var(scores[0], ddof=1)) for scores in self.scores if scores.shape[1] > 1]
        if not spreads:
            return np.ones(len(self.sizes))
        pooled = max(float(np.mean(spreads)), 1e-8)
        runs = [scores.shape[1] for scores in self.scores]
        own = [float(np.var(s[0], ddof=1)) if n > 1 else pooled for s, n in zip(self.scores, runs, strict=True)]
        of_the_mean: Floats = (np.array(own) + pooled) / 2 / np.array(runs)
        return of_the_mean

    def up_to(self, pairs: float) -> Runs:
        """Those of at most this many pairs."""
        kept = [place for place, size in enumerate(self.sizes) if size <= pairs]
        return Runs([self.sizes[place] for place in kept], [self.scores[place] for place in kept])


def fit_curve(measure: str, runs: Runs, seed: int = 0) -> Curve:
    """The curve of a measure.

    Args:
        measure: a key of `MEASURES`.
        runs: of four sizes at least.
        seed: of the resampling over runs.
    """
    law, laws, means = _resampled_laws(runs, seed)
    most, half = runs.sizes[-1], runs.up_to(runs.sizes[-1] / 2)
    points = [
        Point(size, float(mean), _interval(resampled.clip(0, 1)), list(map(float, scores[0])))
        for size, mean, resampled, scores in zip(runs.sizes, runs.means[0], means.T, runs.scores, strict=True)
    ]
    predictions = [
        Prediction(
            factor * most,
            float(law.at(factor * most)),
            _interval(laws.at(factor * most).clip(0, 1)),
            float(law.gain(most, factor * most)),
            _interval(laws.gain(most, factor * most)),
        )
        for factor in FACTORS
    ]
    backtest = None
    if len(half.sizes) >= LEAST_SIZES:
        old, olds, _ = _resampled_laws(half, seed + 1)
        predicted, found = float(old.at(most)), points[-1].mean
        errors = _interval(means[:, -1].clip(0, 1) - olds.at(most).clip(0, 1))
        backtest = Backtest(half.sizes[-1], most, predicted, found, found - predicted, errors)
    return Curve(measure, points, law, predictions, backtest)


def _resampled_laws(runs: Runs, seed: int) -> tuple[PowerLaw, PowerLaw, Floats]:
    """The law, those of resampled questions and runs, and the resampled means (samples, s) that they are fitted to."""
    means, variances = runs.means, runs.variances()
    law = metrics.fit_power_law(runs.sizes, means[0], 1 / variances)
    fitted = np.array([float(law.at(size)) for size in runs.sizes])
    free = len(runs.sizes) - 3
    excess = float(((means[0] - fitted) ** 2 / variances).sum()) / free  # 1, where only the runs' spread is seen
    several = any(scores.shape[1] > 1 for scores in runs.scores)
    spread = np.sqrt(variances * (max(1.0, excess) if several else excess))
    random = np.random.default_rng(seed)
    noise = random.normal(size=means[1:].shape) * spread
    if not several:  # the distances of few points from the curve tell little of the spread: Student's t
        noise *= np.sqrt(free / random.chisquare(free, size=(len(noise), 1)))
    drawn = means[1:] + noise
    return law, metrics.fit_power_law(runs.sizes, drawn, 1 / variances), drawn


def _interval(values: Floats) -> Interval:
    low, high = np.quantile(values, LEVEL)
    return float(low), float(high)


def curves_of(records: Sequence[Record], answers: Mapping[Any, Arrays], *, seed: int = 0) -> dict[str, Curve]:
    """Measure -> its curve.

    Args:
        records: of cells with a number of pairs, finished or failed.
        answers: cell -> its predictions on the evaluated pairs, for each finished one.
        seed: of the resampling.

    Raises:
        UserError: fewer than four sizes have a finished run.
    """
    finished = [record.cell for record in records if record.result]
    sizes = sorted({cell.pairs or 0 for cell in finished})
    if len(sizes) < LEAST_SIZES:
        reasons = "; ".join(dict.fromkeys(record.error for record in records if record.error))
        raise UserError(
            f"learning-curve: only {len(sizes)} sizes are trained; a curve needs {LEAST_SIZES}"
            + (reasons and f": {reasons}")
        )
    labels, groups = (next(iter(answers.values()))[name] for name in ("label", "component"))
    weights = metrics.group_weights(groups, SAMPLES, seed)
    found = {
        "f1": metrics.resampled_f1([answers[cell]["verdict"] for cell in finished], labels, weights),
        "average_precision": metrics.resampled_average_precision(
            [answers[cell]["score"] for cell in finished], labels, weights
        ),
    }
    of_size = [[place for place, cell in enumerate(finished) if cell.pairs == size] for size in sizes]
    return {
        measure: fit_curve(measure, Runs(sizes, [scores[:, places] for places in of_size]), seed)
        for measure, scores in found.items()
    }


def default_sizes(pairs: int) -> list[int]:
    """All pairs, half of them and so on, rising: four to six sizes; the smallest two only where they are 50 or more.

    >>> default_sizes(6667)
    [208, 416, 833, 1666, 3333, 6667]
    """
    halves = [pairs >> times for times in range(6)]
    return sorted(size for size in halves if size >= min(50, pairs >> 3))
