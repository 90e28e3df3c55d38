"""The first section: the figures next to trivial baselines, what was evaluated, and notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape

from qpairs.data.pairs import Pairs
from qpairs.evaluation.charts import gauge
from qpairs.evaluation.evaluate import Report
from qpairs.evaluation.report.markup import facts, is_export, noun, percent, with_interval
from qpairs.evaluation.seen import seen_note
from qpairs.evaluation.sources import source_names
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model
from qpairs.models.two_stages import second_stage
from qpairs.models.verdict import score_name, score_names


def summary(model: Model, found: Report, source: str, notes: Iterator[str]) -> str:
    """The section.

    Args:
        model: the model.
        found: its report.
        source: the name of the pairs.
        notes: from `notices`.
    """
    low, high = found.f1_interval
    trivial = sorted(((values["f1"], name) for name, values in found.baselines.items()), reverse=True)
    compared = f"It is {found.trivial}." if found.trivial else "It is better than the trivial baselines."
    if found.collapsed:
        compared = ""  # a notice says it
    rows = [_row(f"this {noun(model)}", found.f1, found.f1_interval), *(_row(name, f1) for f1, name in trivial)]
    tfidf = "TF-IDF compares only letters; " if "TF-IDF" in found.baselines else ""
    return (
        f'<p class="lead">F1 <strong>{found.f1:.3f}</strong> '
        f'<span class="soft">95 % interval {low:.3f} to {high:.3f}</span><br>'
        f"Of 100 pairs that it calls duplicates, {100 * found.precision:.0f} are. "
        f"Of 100 duplicates, it finds {100 * found.recall:.0f}. {compared}</p>\n"
        + "".join(f'<p class="notice">{escape(note)}</p>\n' for note in notes)
        + f'<div class="sides">\n<div class="panel"><h3>F1 and trivial baselines</h3>\n<table class="trivial">'
        f"{''.join(rows)}</table>\n"
        f'<p class="soft">{tfidf}all duplicate calls every pair a duplicate.</p></div>\n'
        f'<div class="panel"><h3>What was evaluated</h3>\n{facts(_about(model, found, source))}</div>\n</div>'
    )


def _row(name: str, f1: float, interval: Interval | None = None) -> str:
    style = "" if interval else ' class="faint"'
    return f'<tr{style}><td>{escape(name)}</td><td>{gauge(f1, interval)}</td><td class="number">{f1:.3f}</td></tr>'


def _about(model: Model, found: Report, source: str) -> dict[str, str]:
    config, sizes, reference = model.config, model.split.get("sizes", {}), model.verdict.reference
    trained = f"on {source_names(config.data)}" if model.split else "on unknown pairs"
    if "train" in sizes:
        trained += f": {sizes['train']:,} pairs"
    chosen = model.scores.get("calibrated_on", {}).get("n") or (reference.n if reference else 0)
    second = second_stage(model)
    return {
        "Pairs": f"{found.n:,} over {found.n_questions:,} questions; {percent(found.duplicates)} are duplicates",
        "From": source,
        "Cross-encoder" if found.score == "logit" else "Encoder": config.encoder,
        **({"Cross-encoder": second.second.config.encoder} if second else {}),
        **_made(model, trained),
        "Threshold": f"{score_name(found.score)} {found.threshold:.3f}"
        + (f", chosen on {chosen:,} pairs" if chosen else ""),
        "Precision": with_interval(found.precision, found.precision_interval),
        "Recall": with_interval(found.recall, found.recall_interval),
        "Average precision": with_interval(found.average_precision, found.average_precision_interval),
    }


def _made(model: Model, trained: str) -> dict[str, str]:
    """When a model was trained, and what was done with it since."""
    written = model.versions.get("written", "")[:10]
    if second_stage(model):
        return {"Trained": trained, "Joined": written}
    return {"Trained": trained, "Exported": written} if is_export(model) else {"Trained": f"{written}, {trained}"}


def notices(model: Model, found: Report, own: bool, trained_on: Pairs | None) -> Iterator[str]:
    """Notes for reading the figures correctly.

    Args:
        model: the model.
        found: its report.
        own: whether the pairs are the test or validation pairs of the model itself.
        trained_on: the training pairs, if available.
    """
    from qpairs.encoders.build import encoder_note

    names = score_names(found.score)
    if found.collapsed:
        yield f"The model has collapsed: its {names} do not vary, and the figures below mean nothing."
    on_validation, tested = model.scores.get("validation"), {*model.scores, *model.split.get("sizes", {})}
    if own and on_validation and not tested & {"test", "calibrated_on"}:
        low, high = on_validation["f1_cross_fitted_interval"]
        yield (
            f"The {noun(model)} has no test part: threshold and probability were fitted to these same pairs. With "
            f"each half evaluated at the threshold of the other, F1 was {on_validation['f1_cross_fitted']:.3f} "
            f"({low:.3f} to {high:.3f})."
        )
    if found.shift.differs:
        yield (
            f"The {names} here differ from those on which the threshold was chosen: fit it to a few dozen labelled "
            "pairs with qpairs calibrate."
        )
    if model.verdict.reference is None:
        unknown = f"is unknown for this {noun(model)}"
        yield f"Whether the {names} differ from those on which the threshold was chosen {unknown}."
    if trained_on is None:
        yield "The training pairs are unavailable: known words are those of these pairs themselves."
    if found.seen_in_training and (note := seen_note(*dataclasses.astuple(found.seen_in_training)[:2])):
        yield f"{note}."
    if note := encoder_note(model.config.encoder):
        yield f"{note}."
