"""The section on the second look: what the cross-encoder of a model of two stages adds to its encoder."""

from __future__ import annotations

from html import escape

from qpairs import metrics
from qpairs.data.pairs import Pairs
from qpairs.evaluation.evaluate import Report
from qpairs.evaluation.report.markup import percent
from qpairs.models.base import Floats, Model, Tables
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import score_name

COLUMNS = ("", "F1, when combined", "average precision, when combined", "F1 here", "average precision here")


def second_look_section(model: Model, found: Report, tables: Tables | None, pairs: Pairs) -> str:
    """The section; empty for other models.

    Args:
        model: any model.
        found: its report on the pairs.
        tables: embeddings of their questions, from `score_pairs`.
        pairs: labelled pairs.
    """
    if not isinstance(model, TwoStages) or tables is None:
        return ""
    scores = model.first.score_tables(tables, pairs)
    alone = metrics.confusion(scores, pairs.labels, model.first.verdict.pair.threshold).f1
    joined, validation = model.scores.get("second_look", {}), model.scores.get("validation", {})
    rows = {
        "encoder alone": (
            joined.get("f1_first"),
            joined.get("average_precision_first"),
            alone,
            metrics.average_precision(scores, pairs.labels),
        ),
        "cross-encoder alone": (joined.get("f1_second"), joined.get("average_precision_second"), None, None),
        "both": (
            validation.get("f1_cross_fitted"),
            validation.get("average_precision"),
            found.f1,
            found.average_precision,
        ),
    }
    heads = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in COLUMNS)
    body = "".join(f"<tr><td>{name}</td>{''.join(map(_cell, values))}</tr>" for name, values in rows.items())
    return (
        f'<section id="second-look">\n<h2>Second look</h2>\n<p>{escape(_band(model, scores))}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Second look"><table><thead><tr>{heads}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>\n"
        '<p class="soft">When combined: on the validation pairs, F1 by cross-fitting. Here: on the pairs of this page, '
        "at the threshold of the encoder, and of both.</p>\n</section>\n"
    )


def _band(model: TwoStages, scores: Floats) -> str:
    """Which pairs are read."""
    low, high = model.band
    name, seen = score_name(model.first.verdict.score), float(model.band.holds(scores).mean())
    if low > high or low > 1:
        return "The cross-encoder cannot change the decision on any pair, so it reads none."
    return (
        f"The cross-encoder reads the pairs whose {name}, by the encoder, lies between {low:.2f} and {high:.2f}: "
        f"{percent(seen)} of these pairs. Outside this band it could not change the decision, at 99 %."
    )


def _cell(value: float | None) -> str:
    return f'<td class="number">{"" if value is None else f"{value:.3f}"}</td>'
