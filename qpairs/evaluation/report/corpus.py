"""The section on the corpus: what the model finds among all pairs of the questions, and how reliable its hits are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape

from qpairs.evaluation.charts import Axis, Dot, Line, Mark, Rule, legend, plot, strips
from qpairs.evaluation.corpus_report import (
    CorpusReport,
    Point,
    Promise,
    WrongPair,
    corpus_lines,
    corpus_notes,
    range_text,
)
from qpairs.evaluation.report.markup import figure, percent

NONE = (
    "There is no report on the corpus: it needs two questions that are duplicates, sides of a pair that may be "
    "swapped, a verdict that reads cosines, and at most 50,000 questions."
)
NO_VECTORS = (
    "There is no report on the corpus: a cross-encoder has no vectors to search with. Combined with an encoder by "
    "qpairs combine, it takes a second look at what the encoder finds."
)


def corpus_section(found: CorpusReport | None, score: str = "cosine") -> str:
    """The section.

    Args:
        found: the report on the corpus; None: the section says why there is none.
        score: what the scores of the model are on pairs, as in `Verdict`.
    """
    if found is None:
        return f"<p>{escape(NO_VECTORS if score == 'logit' else NONE)}</p>"
    values = dataclasses.asdict(found)
    headline, *others = corpus_lines(values)
    known = "all known" if found.complete else "as far as they are labelled"
    return (
        "<p>The labelled pairs are a selection; a search or a deduplication compares all pairs. Among the "
        f"{found.n * (found.n - 1) // 2:,} pairs of these {found.n:,} questions {found.duplicates:,} are duplicates "
        f"({known}), and {found.at_threshold.pairs:,} are called duplicates.</p>\n"
        + "".join(f"<p>{escape(line[0].upper() + line[1:])}.</p>\n" for line in (headline, *others))
        + "".join(f'<p class="notice">{escape(note)}.</p>\n' for note in corpus_notes(values, score))
        + f'<div class="charts">\n{_reliability(found)}{_curve(found)}</div>\n'
        + _hit_table(found)
        + _promise_table(found.promises)
        + _wrong_list(found.wrong, found.complete)
    )


def _reliability(found: CorpusReport) -> str:
    rows = [hits for hits in found.hits if hits.n]
    xs, ys = [hits.probability for hits in rows], [hits.duplicates for hits in rows]
    dots = [
        Dot(
            hits.probability,
            hits.duplicates,
            "main",
            f"shown with {range_text(hits.low, hits.high)}\n{100 * hits.duplicates:.0f} % are duplicates\n"
            f"{hits.n:,} hits",
            3 + 5 * (hits.n / max(row.n for row in rows)) ** 0.5,
        )
        for hits in rows
    ]
    return figure(
        "Are the probabilities of hits right?",
        plot(
            "Share of duplicates over the predicted probability of hits",
            Axis("predicted probability of a hit", 0, 1),
            Axis("share of duplicates", 0, 1),
            [Line([0, 1], [0, 1], "guide"), Line(xs, ys, "main"), *dots],
        ),
        "Hits are the 10 nearest other questions of each; a larger dot means more hits. The mean distance from the "
        f"dashed line is {found.hit_calibration_error:.3f}.",
    )


def _curve(found: CorpusReport) -> str:
    points, names = found.curve, {"main": "found precision", "third": "found recall"}
    if len(points) < 2:
        return ""
    at = [point.threshold for point in points]
    marks: list[Mark] = []
    if any(point.expected_precision_interval for point in points):
        names |= {"second": "expected precision", "guide": "its 95 % interval"}
        low, high = zip(*(point.expected_precision_interval or (0.0, 1.0) for point in points), strict=True)
        marks += [Line(at, low, "guide"), Line(at, high, "guide")]
        marks.append(Line(at, [point.expected_precision or 0.0 for point in points], "second"))
    marks += [
        Line(at, [point.recall for point in points], "third"),
        Line(at, [point.precision for point in points], "main"),
    ]
    if at[0] <= found.at_threshold.threshold <= at[-1]:
        marks += [
            Rule(found.at_threshold.threshold, "threshold"),
            Dot(found.at_threshold.threshold, found.at_threshold.precision, "chosen"),
        ]
    marks += strips(at, [_tooltip(point) for point in points])
    return figure(
        "Expected and found over all pairs",
        plot("Precision and recall over the threshold", Axis("threshold", at[0], at[-1]), Axis("share", 0, 1), marks)
        + legend(names),
        f"F1 is {found.f1:.3f} at the threshold; the best of all thresholds would be {found.best_f1:.3f}, at "
        f"{found.best_threshold:.3f}.",
    )


def _tooltip(point: Point) -> str:
    expected = ""
    if point.expected_precision is not None and point.expected_precision_interval is not None:
        low, high = point.expected_precision_interval
        expected = f"\nexpected precision {point.expected_precision:.2f} ({low:.2f} to {high:.2f})"
    return (
        f"threshold {point.threshold:.3f}: {point.pairs:,} pairs\nprecision {point.precision:.2f}, recall "
        f"{point.recall:.2f}{expected}"
    )


def _hit_table(found: CorpusReport) -> str:
    rows = (
        [range_text(hits.low, hits.high), f"{hits.n:,}", percent(hits.probability), percent(hits.duplicates)]
        for hits in reversed(found.hits)
        if hits.n
    )
    heads = ["Hits shown with", "Hits", "Mean probability", "Share of duplicates"]
    return _details("Hits by their probability", _table("Hits by their probability", heads, rows))


def _promise_table(promises: Sequence[Promise]) -> str:
    heads = ["Requested precision", "Threshold", "Pairs", "Precision found", "Recall found"]
    table = _wrapped("Promises of precision", _heads(heads), map(_promise_row, promises))
    return f"<h3>Promises of precision</h3>\n{table}\n"


def _promise_row(promise: Promise) -> str:
    asked = f'<td class="number">{promise.asked:g}</td>'
    if promise.threshold is None:
        return f'<tr>{asked}<td class="number soft" colspan="4">refused: not enough evidence</td></tr>'
    shares = (f"{promise.precision:.3f}", f"{promise.recall:.3f}") if promise.pairs else ("", "")
    return f"<tr>{asked}{_cells([f'{promise.threshold:.3f}', f'{promise.pairs:,}', *shares])}</tr>"


def _wrong_list(wrong: Sequence[WrongPair], complete: bool) -> str:
    if not wrong:
        return "<p>No pair called duplicates is wrong.</p>"
    doubt = "" if complete else " Some may be unlabelled duplicates."
    rows = (
        f"<tr><td>{escape(pair.question1)}<br>{escape(pair.question2)}</td>"
        f'<td class="number">{pair.similarity:.3f}</td><td class="number">{100 * pair.probability:.0f} %</td></tr>'
        for pair in wrong
    )
    table = _wrapped(
        "Wrong pairs with the highest scores",
        '<th scope="col">Questions</th><th scope="col" class="number">Score</th>'
        '<th scope="col" class="number">Probability</th>',
        rows,
    )
    either = "either the model or the label is wrong"
    note = f"<p>The {len(wrong)} pairs with the highest scores that count as wrong: {either}.{doubt}</p>"
    return _details("Pairs with the highest scores that count as wrong", f"{note}\n{table}")


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{inside}</details>\n"


def _table(about: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of numbers."""
    return _wrapped(about, _heads(heads), (f"<tr>{_cells(row)}</tr>" for row in rows))


def _heads(names: Iterable[str]) -> str:
    return "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in names)


def _cells(values: Iterable[str]) -> str:
    return "".join(f'<td class="number">{escape(value)}</td>' for value in values)


def _wrapped(about: str, head: str, rows: Iterable[str]) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(about)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
