"""The sections of charts: precision and recall, the threshold, the histogram, the probabilities, the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.evaluation.charts import Axis, Bar, Dot, Line, Mark, Rule, legend, plot, strips
from qpairs.evaluation.evaluate import Report
from qpairs.evaluation.predict import Predictions
from qpairs.evaluation.report.markup import figure, noun
from qpairs.models.base import Model
from qpairs.models.two_stages import first_stage

BINS = 40  # of the histogram
DRAWN = 200  # points of a curve


@dataclass(frozen=True)
class _Curve:
    """Precision and recall at rising thresholds, (k,) each."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: NDArray[np.float64]


def curves(found: Report, predicted: Predictions, score: str) -> list[str]:
    """The four figures on the threshold and the probabilities.

    Args:
        found: the report.
        predicted: predictions for the same pairs.
        score: the name of the score on the page.
    """
    curve = _Curve(*metrics.precision_recall_curve(found.scores, found.labels))
    return [
        _precision_recall(found, curve),
        _over_threshold(found, curve),
        _histogram(found, predicted, score),
        _reliability(found, predicted),
    ]


def _precision_recall(found: Report, curve: _Curve) -> str:
    precision, recall = curve.precision, curve.recall
    drawn = np.unique(np.linspace(len(recall) - 1, 0, min(DRAWN, len(recall))).round().astype(int))[::-1]
    hovered = drawn[:: max(1, len(drawn) // 60)]
    tooltips = [
        f"recall {recall[i]:.2f}, precision {precision[i]:.2f}\nat threshold {curve.threshold[i]:.3f}" for i in hovered
    ]
    chosen = f"chosen threshold {found.threshold:.3f}\nrecall {found.recall:.3f}, precision {found.precision:.3f}"
    marks: list[Mark] = [
        Line([0, 1], [found.duplicates] * 2, "guide"),
        Line(recall[drawn].tolist(), precision[drawn].tolist(), "main"),
        *strips(recall[hovered].tolist(), tooltips),
        Dot(found.recall, found.precision, "chosen", chosen, 6),
    ]
    about = "Precision over recall, the chosen threshold marked"
    return figure(
        "Precision and recall",
        plot(about, Axis("recall", 0, 1), Axis("precision", 0, 1), marks),
        f"Average precision {found.average_precision:.3f}; random scores would get {found.duplicates:.3f}, the "
        "dashed line. The dot is the chosen threshold.",
    )


def _over_threshold(found: Report, curve: _Curve) -> str:
    low, high = _span(found)
    at = np.linspace(low, high, 81)
    cut = np.searchsorted(curve.threshold, at)  # the lowest score at or above each threshold, or none
    precision, recall = np.append(curve.precision, 0.0)[cut], np.append(curve.recall, 0.0)[cut]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = metrics.best_threshold(found.scores, found.labels)
    reachable = metrics.confusion(found.scores, found.labels, best).f1
    tooltips = [
        f"threshold {t:.3f}\nF1 {f:.3f}, precision {p:.3f}, recall {r:.3f}"
        for t, f, p, r in zip(at, f1, precision, recall, strict=True)
    ]
    marks: list[Mark] = [
        Line(at.tolist(), precision.tolist(), "second"),
        Line(at.tolist(), recall.tolist(), "third"),
        Line(at.tolist(), f1.tolist(), "main"),
        Rule(found.threshold, "threshold"),
        Dot(found.threshold, found.f1, "chosen"),
        *strips(at.tolist(), tooltips),
    ]
    return figure(
        "Other thresholds",
        plot("F1, precision and recall over the threshold", Axis("threshold", low, high), Axis("share", 0, 1), marks)
        + legend({"main": "F1", "second": "precision", "third": "recall"}),
        f"F1 is {found.f1:.3f} at the chosen threshold. The best on these pairs would be {reachable:.3f} at "
        f"{best:.3f}, but a threshold chosen on the pairs that it is evaluated on is optimistic.",
    )


def _histogram(found: Report, predicted: Predictions, score: str) -> str:
    low, high = _span(found)
    width = (high - low) / BINS
    below, above = np.ceil((found.threshold - low) / width), np.ceil((high - found.threshold) / width)
    edges = found.threshold + width * np.arange(-below, above + 1)  # the threshold is an edge: no bar contains it
    scores = found.scores.astype(np.float64).clip(edges[0], edges[-1])
    others, duplicates = (np.histogram(scores[found.labels == label], edges)[0] for label in (0, 1))
    marks: list[Mark] = []
    for start, end, down, up in zip(edges[:-1], edges[1:], others, duplicates, strict=True):
        called = start >= found.threshold
        marks.append(Bar(start, end, up, "main" if called else "missed"))
        marks.append(Bar(start, end, -down, "wrong" if called else "other"))
    tooltips = [
        f"{score} {start:.2f} to {start + width:.2f}\n{up:,} duplicates, {down:,} not"
        for start, down, up in zip(edges[:-1], others, duplicates, strict=True)
    ]
    marks += [Rule(found.threshold, "threshold"), *strips((edges[:-1] + width / 2).tolist(), tooltips)]
    most = 1.05 * float(max(others.max(), duplicates.max()))
    names = {
        "bar main": "duplicates found",
        "bar missed": "duplicates missed",
        "bar other": "others rejected",
        "bar wrong": "others called duplicates",
    }
    return figure(
        f"How the {score} separates duplicates from others",
        plot(
            f"Histogram of the {score}: duplicates upwards, the others downwards",
            Axis(score, float(edges[0]), float(edges[-1])),
            Axis("pairs", -most, most, lambda value: f"{abs(value):,g}"),
            marks,
        )
        + legend(names),
        f"Duplicates point upwards, others downwards. {int((predicted.duplicate != (found.labels == 1)).sum()):,} "
        "pairs are on the wrong side.",
    )


def _span(found: Report) -> tuple[float, float]:
    """The range of the scores and the threshold."""
    low, high = min(float(found.scores.min()), found.threshold), max(float(found.scores.max()), found.threshold)
    return (low, high) if high - low > 1e-6 else (low - 0.01, high + 0.01)


def _reliability(found: Report, predicted: Predictions) -> str:
    mean, share, n = (values.tolist() for values in metrics.reliability(predicted.probability, found.labels))
    dots = [
        Dot(a, b, "main", f"predicted {a:.2f}, observed {b:.2f}\n{k:,} pairs")
        for a, b, k in zip(mean, share, n, strict=True)
    ]
    return figure(
        "Are the probabilities right?",
        plot(
            "Share of duplicates over the predicted probability",
            Axis("predicted probability", 0, 1),
            Axis("share of duplicates", 0, 1),
            [Line([0, 1], [0, 1], "guide"), Line(mean, share, "main"), *dots],
        ),
        "Of pairs with probability 0.7, seven in ten should be duplicates: the dashed line. The mean distance from "
        f"it is {found.calibration_error:.3f}.",
    )


def training(model: Model) -> str:
    """The figures on the training history."""
    losses = [row for row in model.history if "loss" in row]
    evaluations = [row for row in model.history if "eval_average_precision" in row]
    if not losses and not evaluations:
        return f"<p>The {noun(model)} has no training history.</p>"
    about = "<p>The training of the encoder.</p>\n" if first_stage(model) is not model else ""
    epochs = Axis("passes over the training pairs", 0, max(row["epoch"] for row in model.history))
    figures = ([_loss(losses, epochs, model.config.loss)] if losses else []) + (
        [_validation(evaluations, epochs)] if evaluations else []
    )
    return f'{about}<div class="charts">\n{"".join(figures)}\n</div>'


def _loss(rows: Sequence[Mapping[str, Any]], epochs: Axis, loss: str) -> str:
    xs, ys = ([float(row[name]) for row in rows] for name in ("epoch", "loss"))
    tooltips = [f"after {x:.2f} passes\nloss {y:.4g}" for x, y in zip(xs, ys, strict=True)]
    axis = Axis("training loss", min(*ys, 0) * 1.05, max(*ys, 1e-6) * 1.05)  # one's own loss may be negative
    chart = plot("Training loss over time", epochs, axis, [Line(xs, ys, "main"), *strips(xs, tooltips)])
    return figure("Loss", chart, f"Loss {loss}, each point a mean since the last.")


def _validation(rows: Sequence[Mapping[str, Any]], epochs: Axis) -> str:
    xs = [float(row["epoch"]) for row in rows]
    scores = {name: [float(row[f"eval_{name}"]) for row in rows] for name in ("average_precision", "f1")}
    values = [value for ys in scores.values() for value in ys]
    axis = Axis("on validation", np.floor(min(values) * 20) / 20, np.ceil(max(values) * 20 + 1e-9) / 20)
    marks: list[Mark] = []
    for (name, ys), style in zip(scores.items(), ("main", "second"), strict=True):
        tooltip = f"after {{:.2f}} passes\n{name.replace('_', ' ')} {{:.3f}}"
        marks += [Line(xs, ys, style), *(Dot(x, y, style, tooltip.format(x, y)) for x, y in zip(xs, ys, strict=True))]
    return figure(
        "Validation during training",
        plot("Average precision and F1 on validation over time", epochs, axis, marks)
        + legend({"main": "average precision", "second": "F1 at its best threshold"}),
        f"The state with the highest average precision is kept: {max(scores['average_precision']):.3f}.",
    )
