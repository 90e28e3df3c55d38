"""What a result means, and what to do next: the last sentence of a command, from plain figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
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


def after_errors(worst: str) -> str:
    """What the mistakes of a model mean; `worst` is the name of the worst slice, '' where none stands out."""
    if not worst:
        return "Mistakes are spread evenly, so more pairs of every kind help, or a stronger encoder."
    return f"Where mistakes are frequent, labels help most: label more pairs like those of {worst!r}, and train again."


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


def after_data(
    contradictions: int, pairs: int, sources: Sequence[str], *, obstacle: str = "", alone: bool = False
) -> str:
    """What a look at pairs means.

    Args:
        contradictions: labels that contradict others.
        pairs: number of pairs.
        sources: where they are.
        obstacle: why no parts can be cut from them, if so.
        alone: whether all are duplicates.
    """
    named = [word for source in sources for word in ("--data", source)]
    if contradictions * 20 > pairs:
        return (
            f"{contradictions:,} labels contradict others, which no model can learn: mend them first "
            f"({command('data', *sources, '--contradictions', 'mend.csv')} writes them)."
        )
    if alone:
        train = command("train", *named, "--validation", "LABELLED.csv")
        return f"All are duplicates: they can be trained on where labelled pairs judge the model: {train}."
    if obstacle:
        return f"They cannot be trained on: {obstacle}."
    few = " So few pairs leave wide intervals; label more as you go." if pairs < 1000 else ""
    return f"They can be trained on: {command('train', *named)}.{few}"


def after_embed(model: object, folder: Path) -> str:
    """What embeddings are for."""
    index = command("index", folder, "--output", folder.with_name("idx"))
    dedupe = command("dedupe", model, folder, "--output", folder.with_name("dedup"))
    return f"Vectors decide nothing yet: index them to search ({index}), or find duplicates among them ({dedupe})."


def after_index(count: int, recall: float | None, index: object) -> str:
    """What an index can do.

    Args:
        count: questions in it.
        recall: share of the nearest that a search finds; None where it compares with all.
        index: its folder.
    """
    if not count:
        return f"Nothing is in the index: add embeddings with {command('index', index, '--add', 'EMBEDDINGS')}."
    search = command("search", index, "How do I ...?")
    if recall is not None and recall < 0.95:
        missed = max(1, round(100 * (1 - recall)))
        return (
            f"A search misses about {missed} of the 100 nearest questions; where that is too many, build it anew with "
            f"--kind exact. Ask it: {search}"
        )
    return f"It can be asked now: {search}"


def after_questions(asked: int, known: int, index: object, model: object) -> str:
    """What the answers of a search mean.

    Args:
        asked: questions that were searched for.
        known: those with a hit that is called a duplicate.
        index: the folder of the index.
        model: of the model.
    """
    labelling = command("serve", model, "--index", index, "--labels", "labels.csv")
    if not known:
        which = "It has" if asked == 1 else f"None of the {asked:,} questions has"
        return (
            f"{which} no duplicate in the index as the model sees it, and is new; where one of the hits above is one, "
            f"label such pairs, and calibrate: {labelling}"
        )
    if asked == 1:
        return f"The question is in the index already; where the verdict is wrong, label such pairs: {labelling}"
    return (
        f"{known:,} of {asked:,} questions are in the index already, and {asked - known:,} are new; where verdicts are "
        f"wrong, label such pairs: {labelling}"
    )


def after_export(before: float, after: float, kind: str, output: object) -> str:
    """What an export is good for.

    Args:
        before: F1 of the checkpoint on the pairs that both were compared on.
        after: likewise, of the export.
        kind: its format.
        output: its folder.
    """
    lost, serve = before - after, command("serve", output)
    if lost > 0.01:
        other = "onnx" if kind != "onnx" else "onnx-int8"
        return (
            f"The export is {lost:.3f} F1 worse on these pairs: use it where speed matters more ({serve}), "
            f"or try --format {other}."
        )
    return f"On these pairs it is as good as the checkpoint, and can take its place: {serve}"


def after_learning_curve(gain: float, low: float, pairs: int) -> str:
    """What a learning curve means.

    Args:
        gain: F1 that twice the pairs are predicted to bring.
        low: end of its 95 % interval.
        pairs: twice the pairs.
    """
    other = command("compare")
    if low <= 0:
        return (
            "Whether more labels of this kind help at all cannot be told here: try other losses and encoders first "
            f"({other}), or repeat with more --seeds."
        )
    if gain < 0.01:
        return f"More labels of this kind bring little: other losses and encoders may bring more ({other})."
    return f"More labels pay: go on labelling, up to about {pairs:,} pairs, and draw the curve again."


def after_dedupe(
    pairs: int, found: tuple[float, float] | None, labelled: bool, output: object, *, folder: bool = False
) -> str:
    """What the duplicates of a corpus mean.

    Args:
        pairs: at or above the threshold.
        found: expected precision and recall among all pairs of the corpus; None where they are not known.
        labelled: whether they rest on labels.
        output: the folder with the results.
        folder: whether the corpus is a folder of embeddings.
    """
    if not pairs:
        how = "a lower --threshold may find some" if folder else "--dry-run shows what lower thresholds would find"
        return f"No two questions are called duplicates; {how}."
    if found is None:
        return (
            f"How many of the pairs are right is not known here: look through those in {output}, and label some for "
            "qpairs calibrate --corpus --labels."
        )
    right, share = (round(100 * value) for value in found)
    then = "with --precision 0.95 fewer are wrong, and fewer found" if right < 95 else "what is kept can be used"
    doubt = "" if labelled else " by the scores alone"
    return (
        f"Of 100 pairs called duplicates in this corpus about {right} are{doubt}, and of 100 duplicates in it about "
        f"{share} are found: {then}; qpairs serve --clusters {shlex.quote(str(output))} mends what is wrong."
    )


def after_trade_offs(chosen: float | None, model: object, questions: object) -> str:
    """What to do with the thresholds of a dry run; `chosen` is the threshold that would be taken."""
    if chosen is None:
        return "No threshold stands out: choose one by looking at pairs, with --threshold and --output."
    which = ("--threshold", f"{chosen:.3f}")
    run = command("dedupe", model, questions, *which, "--output", "dedup")
    return f"The chosen threshold is taken unless another one is named: {run}"


def after_serve(
    index: bool,
    labels: object,
    model: object,
    *,
    session: bool = False,
    read_only: bool = False,
    takes_files: bool = False,
) -> str:
    """What a running service is for.

    Args:
        index: whether there is one.
        labels: file of the labels that are given on the page; None where none are kept.
        model: its folder.
        session: whether a file is labelled, whose labels the verdict follows by itself.
        read_only: whether no labels are asked for.
        takes_files: whether the page takes a file of questions.
    """
    stop = "Ctrl-C stops it."
    if takes_files:
        return f"Open the address to find the duplicates in a file of questions, or to compare two. {stop}"
    if not index:
        return f"Open the address to compare two questions; to search, too, name an index with --index. {stop}"
    if read_only:
        return f"Open the address to search. {stop}"
    if session:
        return f"Open the address to search, and to find the duplicates of the file by some answers. {stop}"
    if labels is None:
        return f"Open the address to search; with --labels FILE the page asks for labels, too. {stop}"
    fit = command("calibrate", model, "--corpus", "QUESTIONS", "--labels", labels, "--output", "calibrated")
    return f"Open the address to search and to label; some hundred labels later, fit the verdict: {fit}. {stop}"
