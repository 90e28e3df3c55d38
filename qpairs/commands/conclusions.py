"""What a result means, and what to do next: the last sentence of a command, from plain figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any


def command(*words: object) -> str:
    """A command line that a shell reads as these words.

    >>> command("errors", "runs/my model")
    "qpairs errors 'runs/my model'"
    """
    return shlex.join(["qpairs", *map(str, words)])


def after_evaluate(scores: Mapping[str, Any], model: object, data: Sequence[str]) -> str:
    """What a report on labelled pairs means.

    Args:
        scores: `Report.to_dict()`.
        model: its folder.
        data: the sources of the pairs; none where they are those that the model was tested on.
    """
    named = [word for source in data for word in ("--data", source)]
    if scores["collapsed"]:
        return "The model tells nothing apart: train it anew with a lower --learning-rate, or with another --loss."
    if scores.get("trivial"):
        return (
            "A model that is no better than a trivial answer needs other training: pairs of your own subject, more of "
            f"them, or another --encoder; {command('data', *(data or ['sample']))} shows what pairs hold."
        )
    if scores["shift"]["differs"]:
        return f"The threshold does not fit these pairs: {command('calibrate', model, *named, '--output', 'here')}."
    found, right = round(100 * scores["recall"]), round(100 * scores["precision"])
    return (
        f"Of 100 duplicates among pairs like these it finds about {found}, and of 100 pairs that it calls duplicates "
        f"about {right} are; which it gets wrong: {command('errors', model, *named)}"
    )


def after_search(scores: Mapping[str, float]) -> str:
    """What the scores of a retrieval set mean; `scores` are those of a `SearchReport`."""
    found = round(100 * scores["recall_at_10"])
    return (
        f"About {found} of 100 relevant texts are among the first 10; where that is too few, train on pairs like the "
        "queries above, or let a cross-encoder take a second look (qpairs combine)."
    )


def after_errors(worst: str, folder: object) -> str:
    """What the mistakes of a model mean; `worst` is the name of the worst slice, '' where none stands out."""
    if not worst:
        return (
            "Mistakes are spread evenly, so more pairs of every kind help, or a stronger encoder; "
            f"every mistake is in {folder}."
        )
    return (
        f"Where mistakes are frequent, labels help most: label more pairs like those of {worst!r}, and train again; "
        f"every mistake and every slice are in {folder}."
    )


def after_compare(best: str, same: int, loss: str, encoder: str) -> str:
    """What a comparison means.

    Args:
        best: name of the best row.
        same: further rows that cannot be told from it.
        loss: that of the best row.
        encoder: likewise.
    """
    beside = {0: "no other row comes near it", 1: "one more cannot be told from it"}.get(
        same, f"{same} more cannot be told from it, so take the quickest of them"
    )
    return (
        f"{best} is best here; {beside}. Train it for longer: {command('train', '--loss', loss, '--encoder', encoder)}"
    )


def after_data(contradictions: int, pairs: int, sources: Sequence[str]) -> str:
    """What a look at pairs means."""
    named = [word for source in sources for word in ("--data", source)]
    if contradictions * 20 > pairs:
        return (
            f"{contradictions:,} labels contradict others, which no model can learn: mend them first "
            f"({command('data', *sources, '--contradictions', 'mend.csv')} writes them)."
        )
    few = " So few pairs leave wide intervals; label more as you go." if pairs < 1000 else ""
    return f"They can be trained on: {command('train', *named)}.{few}"
