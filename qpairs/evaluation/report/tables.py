"""The sections of tables: the slices, and every mistake."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape
from typing import Any

from qpairs.data.words import word_pattern, words
from qpairs.evaluation.charts import gauge
from qpairs.evaluation.mistakes import Analysis
from qpairs.evaluation.report.markup import lift, percent, with_interval
from qpairs.evaluation.slices import ErrorSlice

LISTED = 10_000  # mistakes in the table at most


def slice_section(found: Analysis, f1: float) -> str:
    """The slices, those with significantly more mistakes first; `f1` is that of all pairs."""
    numbered = list(enumerate(found.slices))
    worse, others = ([pair for pair in numbered if pair[1].worse == kind] for kind in (True, False))
    parts = []
    if worse:
        parts.append(
            f"<p>In {len(worse)} of {len(numbered)} slices mistakes are significantly more frequent than elsewhere. "
            "The worst first; a click shows its mistakes.</p>"
        )
        parts.append(_slice_table(worse, f1))
    else:
        parts.append(f"<p>In none of {len(numbered)} slices are mistakes significantly more frequent.</p>")
    if others:
        which = "The other" if worse else "All"
        parts.append(f"<details><summary>{which} {len(others)} slices</summary>{_slice_table(others, f1)}</details>")
    parts.append(
        '<p class="soft">Lift: error rate here over error rate elsewhere. p: probability of such a large '
        "difference by chance in any of the slices. The tick in each bar is the F1 of all pairs, "
        f"{f1:.3f}; a slice with many duplicates may exceed it despite more mistakes.</p>"
    )
    return "\n".join(parts)


def _slice_table(numbered: Iterable[tuple[int, ErrorSlice]], f1: float) -> str:
    rows = (
        f'<tr><td><button data-slice="{number}">{escape(part.name)}</button>'
        f'<div class="soft">{escape(part.rule)}</div></td>'
        f'<td class="number">{part.n:,}</td><td class="number">{part.errors:,} <span class="soft">'
        f'{percent(part.error_rate)}</span></td><td class="number">{lift(part.lift)}</td>'
        f'<td>{gauge(part.f1, part.f1_interval, reference=f1)}</td><td class="interval-text">'
        f'{with_interval(part.f1, part.f1_interval)}</td><td class="number">{part.p_corrected:.4f}</td></tr>'
        for number, part in numbered
    )
    heads = {"Slice": "", "Pairs": "number", "Wrong": "number", "Lift": "number", "F1": "", "95 % interval": "number"}
    head = "".join(f'<th scope="col" class="{style}">{name}</th>' for name, style in (heads | {"p": "number"}).items())
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of slices"><table class="table-of-slices">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def mistake_section(found: Analysis) -> str:
    """The text above the table of mistakes."""
    n, wrong = len(found.pairs), int(found.wrong.sum())
    text = (
        f"{wrong:,} of {n:,} decisions are wrong ({percent(wrong / n)}): {wrong - found.missed:,} pairs are called "
        f"duplicates and are not, {found.missed:,} duplicates are missed. Words of only one question are marked; "
        "off by is the distance from the threshold."
    )
    return text + (f" The {LISTED:,} farthest from the threshold are shown." if wrong > LISTED else "")


def mistake_data(found: Analysis) -> dict[str, Any]:
    """The data for the script of the page: the slices, and the mistakes with the numbers of their slices."""
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
    """The text in pieces, every second of which is a word to mark.

    Args:
        text: a question.
        own: words of this question only, as in `Mistake.only1`.

    >>> marked("Can I pay now?", {"now"})
    ['Can I pay ', 'now', '?']
    """
    pieces, end = list[str](), 0
    for match in word_pattern().finditer(text):
        if any(word in own for word in words(match[0])):
            pieces += [text[end : match.start()], match[0]]
            end = match.end()
    return [*pieces, text[end:]]
