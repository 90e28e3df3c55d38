"""A checkpoint and labelled pairs -> one HTML page: the verdict, its curves, the slices, every mistake, a map.

Computes what `charts` draws and puts it into `pages/report.html`. The page loads nothing, and its policy lets it load
nothing; the same model, pairs and seed give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import parts_of
from qpairs.data.splits import duplicate_components, leak
from qpairs.encoders.build import encoder_note
from qpairs.evaluation.charts import Axis, Bar, Dot, Line, Mark, Rule, gauge, legend, plot, strips
from qpairs.evaluation.evaluate import Report, as_pairs, report, verdicts
from qpairs.evaluation.mistakes import Analysis, ErrorSlice, analyse
from qpairs.models.base import Model, Tables, as_model, score_pairs

PAGE = Path(__file__).parent / "pages" / "report"
MAPPED = 1_000  # questions on the map at most
MAP_SIZE = (760, 560)
TOLD = 300  # characters of a question on the map
LISTED = 10_000  # mistakes in the table at most
BINS = 40  # of the histogram
DRAWN = 200  # points of a curve
_WORD = re.compile(r"(\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}]\w+)*)")  # as in errors.Wording


def render(
    model: Model | str | Path,
    data: Pairs | str | Path | Sequence[str | Path] | None = None,
    *,
    title: str = "",
    source: str = "",
    trained_on: Pairs | None = None,
    seed: int = 0,
) -> str:
    """The page as a text.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source; without it, those that the checkpoint was tested on.
        title: what the page calls the checkpoint; without it, the name of the folder it was trained into.
        source: what it calls the pairs.
        trained_on: the training pairs, whose words are the known ones; found without help where `data` is not given.
        seed: of the bootstrap, of the test against chance, and of the map.

    Raises:
        UserError: the data cannot be used, or has pairs of one label only; those of the test are gone, or have changed.
    """
    model = as_model(model)
    if data is None:
        pairs, source, trained_on = tested_on(model)
    else:
        pairs, source = as_pairs(data), source or "the pairs given"
    need_both_labels(pairs, "report")
    scores, tables = score_pairs(model, pairs)
    verdict = report(model, pairs, scores, tables, seed=seed)
    found = analyse(model, pairs, trained_on=trained_on, verdicts=verdicts(model.verdict.pair, scores), seed=seed)
    named = "similarity" if model.verdict.score == "cosine" else "score"
    script, style = ((PAGE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return string.Template((PAGE / "report.html").read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"script-src {_source(script)}; style-src {_source(style)}",
        title=escape(title or Path(model.config.output).name or "checkpoint"),
        style=style,
        script=script,
        score=named.capitalize(),
        verdict=_verdict(model, verdict, source, _notices(model, verdict, data is None, pairs, trained_on)),
        threshold="\n".join(_curves(model, verdict, named)),
        training=_training(model),
        slices=_slices(found, verdict.f1),
        mistakes=_mistakes(found),
        map=_map(found, tables, verdict.collapsed, seed),
        footer=_footer(model),
        data=_json(_table(found)),
    )


def tested_on(model: Model) -> tuple[Pairs, str, Pairs]:
    """The pairs that a checkpoint was tested on, where they come from, and those that it was trained on.

    Raises:
        UserError: they are gone, or have changed.
    """
    try:
        parts = parts_of(model.config, model.split)
    except UserError as error:
        raise UserError(f"report: the pairs of its test are not to be had ({error}); name others by --data") from error
    config = model.config
    if parts.test is None:
        return parts.validation, f"{named_sources(config.validation)} (validation)", parts.train
    where = named_sources(config.test) if config.test else f"{named_sources(config.data)}, the part kept for the test"
    return parts.test, where, parts.train


def named_sources(sources: Iterable[str]) -> str:
    """Names of sources that tell nothing of the folders of a machine."""
    return ", ".join(
        Path(name).name if Path(name).is_absolute() or Path(name).suffix in FORMATS else name for name in sources
    )


# ---------------------------------------------------------------------- verdict


def _verdict(model: Model, verdict: Report, source: str, notices: Iterable[str]) -> str:
    low, high = verdict.f1_interval
    trivial = sorted(((values["f1"], name) for name, values in verdict.baselines.items()), reverse=True)
    best = trivial[0][0]
    if low > best:
        beside = "It is clearly better than the trivial answers."
    elif verdict.f1 > best:
        beside = "It is better than the trivial answers, but on so few pairs that may be luck."
    else:
        beside = "It is no better than a trivial answer."
    rows = [_answer("this checkpoint", verdict.f1, verdict.f1_interval)]
    rows += [_answer(name, f1) for f1, name in trivial]
    return (
        f'<p class="lead">F1 <strong>{verdict.f1:.3f}</strong> '
        f'<span class="soft">95 % interval {low:.3f} to {high:.3f}</span><br>'
        f"Of 100 pairs that it calls duplicates, {100 * verdict.precision:.0f} are. "
        f"Of 100 duplicates, it finds {100 * verdict.recall:.0f}. {beside}</p>\n"
        + "".join(f'<p class="notice">{escape(notice)}</p>\n' for notice in notices)
        + f'<div class="sides">\n<div class="panel"><h3>F1 beside trivial answers</h3>\n<table class="trivial">'
        f"{''.join(rows)}</table>\n"
        '<p class="soft">TF-IDF compares the letters alone; all duplicate calls every pair one.</p></div>\n'
        f'<div class="panel"><h3>What was judged</h3>\n{_facts(_about(model, verdict, source))}</div>\n</div>'
    )


def _answer(name: str, f1: float, interval: tuple[float, float] | None = None) -> str:
    style = "" if interval else ' class="faint"'
    return f'<tr{style}><td>{escape(name)}</td><td>{gauge(f1, interval)}</td><td class="number">{f1:.3f}</td></tr>'


def _about(model: Model, verdict: Report, source: str) -> dict[str, str]:
    config, sizes = model.config, model.split.get("sizes", {})
    trained = f"{model.versions.get('written', '')[:10]}, on {named_sources(config.data)}"
    if "train" in sizes:
        trained += f": {sizes['train']:,} pairs"
    reference = model.verdict.reference
    chosen = model.scores.get("calibrated_on", {}).get("n") or (reference.n if reference else 0)
    return {
        "Pairs": f"{verdict.n:,} over {verdict.n_questions:,} questions; {_percent(verdict.duplicates)} are duplicates",
        "From": source,
        "Encoder": config.encoder,
        "Trained": trained,
        "Threshold": f"{verdict.threshold:.3f}, chosen on {chosen:,} pairs",
        "Precision": _with_interval(verdict.precision, verdict.precision_interval),
        "Recall": _with_interval(verdict.recall, verdict.recall_interval),
        "Average precision": _with_interval(verdict.average_precision, verdict.average_precision_interval),
    }


def _notices(model: Model, verdict: Report, own: bool, pairs: Pairs, trained_on: Pairs | None) -> Iterable[str]:
    """What a reader must know to read the figures right; `own` says that the pairs are those of the model."""
    if verdict.collapsed:
        yield "The model has collapsed: its similarities do not vary, and the figures below mean nothing."
    on_validation = model.scores.get("validation")
    if own and on_validation and not model.scores.keys() & {"test", "calibrated_on"}:
        low, high = on_validation["f1_cross_fitted_interval"]
        yield (
            "The checkpoint has no test part: threshold and probability were chosen on these very pairs. With each "
            f"half judged at the threshold of the other, F1 was {on_validation['f1_cross_fitted']:.3f} "
            f"({low:.3f} to {high:.3f})."
        )
    if verdict.shift.differs:
        yield (
            "The similarities here differ from those that the threshold was chosen on: fit it to a few dozen labelled "
            "pairs with qpairs calibrate."
        )
    if trained_on is None:
        yield "The training pairs are not to be read here: known words are those of these pairs themselves."
    elif seen := leak(trained_on, pairs).questions:
        yield f"{seen:,} of the questions stand in the training pairs too, which flatters the figures."
    if note := encoder_note(model.config.encoder):
        yield f"{note}."


# ---------------------------------------------------------------------- curves


def _curves(model: Model, verdict: Report, named: str) -> Iterable[str]:
    precision, recall, thresholds = metrics.precision_recall_curve(verdict.scores, verdict.labels)
    yield _precision_recall(verdict, precision, recall, thresholds)
    yield _over_threshold(verdict, precision, recall, thresholds)
    yield _histogram(verdict, named)
    yield _reliability(model, verdict)


def _precision_recall(
    verdict: Report, precision: NDArray[np.float64], recall: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> str:
    some = np.unique(np.linspace(len(recall) - 1, 0, min(DRAWN, len(recall))).round().astype(int))[::-1]
    told = some[:: max(1, len(some) // 60)]
    tips = [f"recall {recall[i]:.2f}, precision {precision[i]:.2f}\nat threshold {thresholds[i]:.3f}" for i in told]
    chosen = f"chosen threshold {verdict.threshold:.3f}\nrecall {verdict.recall:.3f}, precision {verdict.precision:.3f}"
    marks: list[Mark] = [
        Line([0, 1], [verdict.duplicates] * 2, "guide"),
        Line(recall[some].tolist(), precision[some].tolist(), "main"),
        *strips(recall[told].tolist(), tips),
        Dot(verdict.recall, verdict.precision, "chosen", chosen, 6),
    ]
    return _figure(
        "Precision and recall",
        plot(
            "Precision over recall, the chosen threshold marked", Axis("recall", 0, 1), Axis("precision", 0, 1), marks
        ),
        f"Average precision {verdict.average_precision:.3f}; answers at random would get {verdict.duplicates:.3f}, the "
        "dashed line. The dot is the chosen threshold.",
    )


def _over_threshold(
    verdict: Report,
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> str:
    low, high = _span(verdict)
    at = np.linspace(low, high, 81)
    cut = np.searchsorted(thresholds, at)  # the first score that a threshold lets pass, or none
    lines = {"precision": np.append(precision, 0.0)[cut], "recall": np.append(recall, 0.0)[cut]}
    f1 = 2 * lines["precision"] * lines["recall"] / np.maximum(lines["precision"] + lines["recall"], 1e-12)
    best = metrics.best_threshold(verdict.scores, verdict.labels)
    reachable = metrics.confusion(verdict.scores, verdict.labels, best).f1
    tips = [
        f"threshold {t:.3f}\nF1 {f:.3f}, precision {p:.3f}, recall {r:.3f}"
        for t, f, p, r in zip(at, f1, *lines.values(), strict=True)
    ]
    marks: list[Mark] = [
        Line(at.tolist(), lines["precision"].tolist(), "second"),
        Line(at.tolist(), lines["recall"].tolist(), "third"),
        Line(at.tolist(), f1.tolist(), "main"),
        Rule(verdict.threshold, "threshold"),
        Dot(verdict.threshold, verdict.f1, "chosen"),
        *strips(at.tolist(), tips),
    ]
    return _figure(
        "What another threshold would give",
        plot("F1, precision and recall over the threshold", Axis("threshold", low, high), Axis("share", 0, 1), marks)
        + legend({"main": "F1", "second": "precision", "third": "recall"}),
        f"F1 is {verdict.f1:.3f} at the chosen threshold. The best on these pairs would be {reachable:.3f} at "
        f"{best:.3f}, but a threshold chosen on the pairs it is judged on flatters itself.",
    )


def _histogram(verdict: Report, named: str) -> str:
    low, high = _span(verdict)
    width = (high - low) / BINS
    before, after = np.ceil((verdict.threshold - low) / width), np.ceil((high - verdict.threshold) / width)
    edges = verdict.threshold + width * np.arange(-before, after + 1)  # the threshold is one: no bar has it inside
    scores = verdict.scores.astype(np.float64).clip(edges[0], edges[-1])
    counts = {label: np.histogram(scores[verdict.labels == label], edges)[0] for label in (0, 1)}
    marks: list[Mark] = []
    for start, end, others, duplicates in zip(edges[:-1], edges[1:], counts[0], counts[1], strict=True):
        passed = start >= verdict.threshold
        marks.append(Bar(start, end, duplicates, "main" if passed else "missed"))
        marks.append(Bar(start, end, -others, "wrong" if passed else "other"))
    tips = [
        f"{named} {start:.2f} to {start + width:.2f}\n{duplicates:,} duplicates, {others:,} not"
        for start, others, duplicates in zip(edges[:-1], counts[0], counts[1], strict=True)
    ]
    marks += [Rule(verdict.threshold, "threshold"), *strips((edges[:-1] + width / 2).tolist(), tips)]
    most = float(max(counts[0].max(), counts[1].max()))
    wrong = (verdict.scores.astype(np.float64) >= verdict.threshold) != (verdict.labels == 1)
    return _figure(
        f"How the {named} parts them",
        plot(
            f"Histogram of the {named}: duplicates upwards, the others downwards",
            Axis(named, float(edges[0]), float(edges[-1])),
            Axis("pairs", -most * 1.05, most * 1.05, lambda value: f"{abs(value):,g}"),
            marks,
        )
        + legend(
            {
                "bar main": "duplicates found",
                "bar missed": "duplicates missed",
                "bar other": "others told apart",
                "bar wrong": "others called duplicates",
            }
        ),
        f"Upwards the duplicates, downwards the others. {int(wrong.sum()):,} pairs are on the wrong side.",
    )


def _span(verdict: Report) -> tuple[float, float]:
    """Where the scores and the threshold lie."""
    low, high = min(float(verdict.scores.min()), verdict.threshold), max(float(verdict.scores.max()), verdict.threshold)
    return (low, high) if high - low > 1e-6 else (low - 0.01, high + 0.01)


def _reliability(model: Model, verdict: Report) -> str:
    probability = model.verdict.pair.probability(verdict.scores)
    said, was, n = (values.tolist() for values in metrics.reliability(probability, verdict.labels))
    tips = (f"said {a:.2f}, were {b:.2f}\n{k:,} pairs" for a, b, k in zip(said, was, n, strict=True))
    marks: list[Mark] = [
        Line([0, 1], [0, 1], "guide"),
        Line(said, was, "main"),
        *(Dot(a, b, "main", tip) for a, b, tip in zip(said, was, tips, strict=True)),
    ]
    return _figure(
        "Can its probabilities be believed?",
        plot(
            "Share of duplicates over the probability that was said",
            Axis("probability that it says", 0, 1),
            Axis("share of duplicates", 0, 1),
            marks,
        ),
        f"Of pairs at 0.7, seven in ten should be duplicates: the dashed line. The mean distance from it is "
        f"{verdict.calibration_error:.3f}.",
    )


def _training(model: Model) -> str:
    losses = [(row["epoch"], row["loss"]) for row in model.history if "loss" in row]
    looks = [row for row in model.history if "eval_average_precision" in row]
    if not losses and not looks:
        return "<p>The checkpoint keeps no history of its training.</p>"
    epochs = Axis("passes over the training pairs", 0, max(row["epoch"] for row in model.history))
    figures = []
    if losses:
        xs, ys = ([float(point[side]) for point in losses] for side in (0, 1))
        tips = [f"after {x:.2f} passes\nloss {y:.4g}" for x, y in losses]
        figures.append(
            _figure(
                "Loss",
                plot(
                    "Training loss over time",
                    epochs,
                    Axis("training loss", 0, max(*ys, 1e-6) * 1.05),
                    [Line(xs, ys, "main"), *strips(xs, tips)],
                ),
                f"Loss {model.config.loss}, each point a mean since the last.",
            )
        )
    if looks:
        xs = [float(row["epoch"]) for row in looks]
        both = {name: [float(row[f"eval_{name}"]) for row in looks] for name in ("average_precision", "f1")}
        values = [value for line in both.values() for value in line]
        bounds = np.floor(min(values) * 20) / 20, np.ceil(max(values) * 20 + 1e-9) / 20
        marks: list[Mark] = []
        for (name, ys), style in zip(both.items(), ("main", "second"), strict=True):
            tips = [f"after {x:.2f} passes\n{name.replace('_', ' ')} {y:.3f}" for x, y in zip(xs, ys, strict=True)]
            marks += [Line(xs, ys, style), *(Dot(x, y, style, tip) for x, y, tip in zip(xs, ys, tips, strict=True))]
        figures.append(
            _figure(
                "Validation while it was trained",
                plot("Average precision and F1 on validation over time", epochs, Axis("on validation", *bounds), marks)
                + legend({"main": "average precision", "second": "F1 at its best threshold"}),
                f"The state of greatest average precision is kept: {max(both['average_precision']):.3f}.",
            )
        )
    return f'<div class="charts">\n{"".join(figures)}\n</div>'


# ---------------------------------------------------------------------- slices and mistakes


def _slices(found: Analysis, f1: float) -> str:
    numbered = list(enumerate(found.slices))
    worse, others = ([pair for pair in numbered if pair[1].worse == kind] for kind in (True, False))
    parts = []
    if worse:
        parts.append(
            f"<p>In {len(worse)} of {len(numbered)} slices mistakes are more frequent than elsewhere, beyond chance. "
            "The worst first; a click shows its mistakes.</p>"
        )
        parts.append(_slice_table(worse, f1))
    else:
        parts.append(f"<p>In none of {len(numbered)} slices are mistakes more frequent than chance explains.</p>")
    if others:
        which = "The other" if worse else "All"
        parts.append(f"<details><summary>{which} {len(others)} slices</summary>{_slice_table(others, f1)}</details>")
    parts.append(
        '<p class="soft">Lift: share of wrong verdicts here over that elsewhere. p: of so large a difference by chance '
        f"anywhere in so many slices. The tick in each bar is the F1 of all pairs, {f1:.3f}; a slice of many "
        "duplicates may pass it in spite of more mistakes.</p>"
    )
    return "\n".join(parts)


def _slice_table(numbered: Iterable[tuple[int, ErrorSlice]], f1: float) -> str:
    rows = (
        f'<tr><td><button data-slice="{number}">{escape(part.name)}</button>'
        f'<div class="soft">{escape(part.rule)}</div></td>'
        f'<td class="number">{part.n:,}</td><td class="number">{part.errors:,} <span class="soft">'
        f'{_percent(part.error_rate)}</span></td><td class="number">{_lift(part.lift)}</td>'
        f'<td>{gauge(part.f1, part.f1_interval, beside=f1)}</td><td class="interval-text">'
        f'{_with_interval(part.f1, part.f1_interval)}</td><td class="number">{part.p_corrected:.4f}</td></tr>'
        for number, part in numbered
    )
    heads = {"Slice": "", "Pairs": "number", "Wrong": "number", "Lift": "number", "F1": "", "95 % interval": "number"}
    head = "".join(f'<th scope="col" class="{style}">{name}</th>' for name, style in (heads | {"p": "number"}).items())
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of slices"><table class="table-of-slices">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _mistakes(found: Analysis) -> str:
    n, wrong = len(found.pairs), int(found.wrong.sum())
    missed = int((found.wrong & (found.pairs.labels == 1)).sum())
    told = (
        f"{wrong:,} of {n:,} verdicts are wrong ({_percent(wrong / n)}): {wrong - missed:,} pairs are called "
        f"duplicates that are none, {missed:,} duplicates are missed. Words that one question has alone are marked; "
        "off by is the distance from the threshold."
    )
    return told + (f" Shown are the {LISTED:,} farthest off." if wrong > LISTED else "")


def _table(found: Analysis) -> dict[str, Any]:
    """What the script of the page lists: the slices, and the mistakes with the numbers of theirs."""
    number = {part.name: place for place, part in enumerate(found.slices)}
    return {
        "slices": [{"name": part.name, "errors": part.errors, "worse": part.worse} for part in found.slices],
        "mistakes": [
            {
                "questions": [marked(mistake.question1, mistake.only1), marked(mistake.question2, mistake.only2)],
                "label": mistake.label,
                "similarity": round(mistake.similarity, 4),
                "distance": round(mistake.distance, 4),
                "probability": round(mistake.probability, 4),
                "contradicted": mistake.label == 0 and mistake.component1 == mistake.component2,
                "slices": [number[name] for name in mistake.slices],
            }
            for mistake in found.mistakes()[:LISTED]
        ],
    }


def marked(text: str, own: Collection[str]) -> list[str]:
    """The text in pieces, of which every second is a word that is to be marked.

    Args:
        text: a question.
        own: words in lower case, apostrophes straight, as `Mistake.only1` has them.
    """
    pieces = [""]
    for number, piece in enumerate(_WORD.split(text)):
        if number % 2 and piece.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") in own:
            pieces += [piece, ""]
        else:
            pieces[-1] += piece
    return pieces


# ---------------------------------------------------------------------- map


def _map(found: Analysis, tables: Tables, collapsed: bool, seed: int) -> str:
    pairs = found.pairs
    questions = mapped(pairs, found.wrong, MAPPED, seed)
    if collapsed or len(questions) < 5:
        return "<p>There is nothing to map: too few questions, or all of them in one place.</p>"
    rows, columns = tables
    vectors = rows if columns is rows else np.concatenate([rows, columns], axis=1)
    place = dict(zip(questions.tolist(), layout(vectors[questions], seed).tolist(), strict=True))
    component = duplicate_components(pairs)
    chart = plot(
        f"Map of {len(questions):,} questions, those of one meaning near each other",
        Axis("", 0, 1),
        Axis("", 0, 1),
        [*_links(found, place, component), *_dots(found, place, component)],
        MAP_SIZE,
    )
    return (
        f"<p>{len(questions):,} of {len(pairs.questions):,} questions, chosen to show mistakes and whole "
        "components of duplicates. Near each other is what the encoder takes for alike (t-SNE: distances across the "
        "map mean little). A ring is a question of a mistake, a line joins a pair. Point at a question to read it and "
        "to see its component, or use the arrow keys."
        f'</p>\n<figure><div class="map">{chart}</div>'
        + legend(
            {
                "bar main": "has duplicates",
                "bar other": "has none",
                "found": "duplicates found",
                "missed": "duplicates missed",
                "wrong": "false positives",
            }
        )
        + "</figure>"
    )


def _links(found: Analysis, place: Mapping[int, Sequence[float]], component: NDArray[np.int64]) -> list[Mark]:
    """The duplicates among the questions of the map, and the false positives: the mistakes on top."""
    links: dict[str, list[Mark]] = {"found": [], "wrong": [], "missed": []}
    for row, ends in enumerate(zip(found.pairs.left.tolist(), found.pairs.right.tolist(), strict=True)):
        duplicates, wrong = found.pairs.labels[row] == 1, bool(found.wrong[row])
        if (duplicates or wrong) and all(end in place for end in ends):
            xs, ys = zip(*(place[end] for end in ends), strict=True)
            style = "wrong" if not duplicates else "missed" if wrong else "found"
            links[style].append(Line(xs, ys, style, str(component[ends[0]]) if duplicates else ""))
    return [mark for marks in links.values() for mark in marks]


def _dots(found: Analysis, place: Mapping[int, Sequence[float]], component: NDArray[np.int64]) -> list[Mark]:
    """The questions of the map; the style says whether they have duplicates, and are part of a mistake."""
    pairs, dots, size = found.pairs, list[Mark](), np.bincount(component)
    mistakes: dict[int, str] = {}
    for label, style in ((0, "wrong"), (1, "missed")):
        rows = found.wrong & (pairs.labels == label)
        mistakes |= dict.fromkeys([*pairs.left[rows].tolist(), *pairs.right[rows].tolist()], style)
    for question, (x, y) in place.items():
        group, others = component[question], int(size[component[question]]) - 1
        known = f"component {group}: {others} known duplicate{'s' * (others > 1)}" if others else "no known duplicate"
        tip = f"{pairs.questions[question][:TOLD]}\n{known}"
        style = f"{'joined' if others else 'alone'} {mistakes.get(question, '')}"
        dots.append(Dot(x, y, style.strip(), tip, radius=4, group=str(group)))
    return dots


def mapped(pairs: Pairs, wrong: NDArray[np.bool_], most: int, seed: int = 0) -> NDArray[np.int64]:
    """The questions to map, one duplicate component after the other; half of the room is for those of mistakes.

    Args:
        pairs: labelled pairs.
        wrong: (n,) whether the verdict on each is wrong.
        most: questions at most; a component that no longer fits is left out.
        seed: of the order in which they are tried.
    """
    component, random = duplicate_components(pairs), np.random.default_rng(seed)
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    rows = random.permutation(np.flatnonzero(wrong))
    mistaken = np.stack([component[pairs.left[rows]], component[pairs.right[rows]]], axis=1).tolist()
    several, alone = list[list[int]](), list[list[int]]()
    for one in random.permutation(len(members)).tolist():
        (several if len(members[one]) > 1 else alone).append([one])
    taken, n = dict[int, None](), 0
    for groups, room in ((mistaken, most // 2), (several, most), (mistaken, most), (alone, most)):
        for group in groups:
            new = [one for one in dict.fromkeys(group) if one not in taken]
            more = sum(len(members[one]) for one in new)
            if n + more <= room:
                taken.update(dict.fromkeys(new))
                n += more
    return np.concatenate([np.empty(0, dtype=np.int64), *(members[one] for one in sorted(taken))])


def layout(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Places (n, 2) in the unit square, by t-SNE (van der Maaten and Hinton, 2008).

    One thread, because the order in which several add up changes the last digits, and t-SNE makes much of them.

    Args:
        vectors: (n, d) unit vectors, at least 5.
        seed: of the optimisation.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = TSNE(init="pca", perplexity=min(30, (len(vectors) - 1) / 3), random_state=seed).fit_transform(vectors)
    span = np.ptp(found, axis=0)
    return np.asarray((found - found.min(axis=0)) / np.where(span > 0, span, 1), dtype=np.float64)


# ---------------------------------------------------------------------- pieces


def _figure(title: str, chart: str, caption: str) -> str:
    return f"<figure>\n<h3>{escape(title)}</h3>\n{chart}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def _facts(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts.items())}</dl>"


def _footer(model: Model) -> str:
    version = escape(model.versions.get("qpairs", ""))
    return (
        "<p>F1 is the harmonic mean of precision (how many of the pairs called duplicates are) and recall (how many of "
        "the duplicates are found). Intervals are 95 %, by bootstrap over groups of pairs that share questions. The "
        f"checkpoint was made by qpairs {version}.</p>"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _lift(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "∞"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _source(text: str) -> str:
    """The name by which a policy lets this very script or style pass, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(values: Any) -> str:
    """JSON that nothing inside a script element can end."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
