"""What a result means, and what to do next: the last sentence of a command, from plain figures.

Commands are lists of words, without `qpairs` before them: `terminal.print_conclusion` quotes them for the shell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qpairs.commands.reading import NamedPairs

LABELLED = "LABELLED.csv"  # stands for a file that the user has to name


@dataclass(frozen=True)
class Conclusion:
    """The last sentence of a command.

    Attributes:
        sentence: ends with a colon where commands follow.
        commands: that come next, the words of each.
    """

    sentence: str
    commands: tuple[tuple[object, ...], ...] = ()


def _then(sentence: str, *words: object) -> Conclusion:
    """A sentence, and one command that comes next."""
    return Conclusion(sentence, (words,))


def after_evaluate(scores: Mapping[str, Any], model: object, named: NamedPairs, trained_on: NamedPairs) -> Conclusion:
    """What a report on labelled pairs means.

    Args:
        scores: `Report.to_dict()`.
        model: its folder.
        named: the pairs; without a source if they are those that the model was tested on.
        trained_on: those that the model was trained on.
    """
    if scores["collapsed"]:
        return Conclusion(
            "The model scores all pairs alike: train it again with a lower --learning-rate or another --loss."
        )
    if scores.get("trivial"):
        known = named if named.data else trained_on
        return _then(
            "The model is no better than a baseline: train it on pairs of your own subject, on more of them, or with "
            "another --encoder. To see what the pairs contain:",
            *("data", *(known.data or (LABELLED,)), *known.reading_words()),
        )
    if scores["shift"]["differs"]:
        fitted = (named if named.data else named.like(LABELLED)).words(labels="--label-values")
        return _then(
            "The threshold does not fit these pairs; calibrate it on them:",
            "calibrate",
            model,
            *fitted,
            "--output",
            "here",
        )
    found, right = round(100 * scores["recall"]), round(100 * scores["precision"])
    return _then(
        f"Of 100 duplicates among pairs like these it finds about {found}, and of 100 pairs that it calls duplicates "
        f"about {right} are. To see its mistakes:",
        *("errors", model, *(named.words() if named.data else ())),
    )


def after_search(scores: Mapping[str, float]) -> Conclusion:
    """What the scores of a retrieval set mean; `scores` are those of a `SearchReport`."""
    found = round(100 * scores["recall_at_10"])
    return Conclusion(
        f"About {found} of 100 relevant texts are among the first 10; if that is too few, train on pairs like the "
        "queries above, or add a cross-encoder as a second look (qpairs combine)."
    )


def after_errors(worst: str) -> Conclusion:
    """What the mistakes of a model mean; `worst` is the name of the worst slice, '' if none stands out."""
    if not worst:
        return Conclusion("Mistakes are spread evenly: label more pairs of every kind, or use a stronger encoder.")
    return Conclusion(
        f"Labels help most where mistakes are frequent: label more pairs like those of {worst!r}, and train again."
    )


def after_compare(best: str, same: int, options: Sequence[str], *, others: bool = True) -> Conclusion:
    """What a comparison means.

    Args:
        best: name of the best row.
        same: further rows that do not differ from it significantly.
        options: of a run like those of the best row, without its time limit.
        others: whether there are other rows.
    """
    if not others:
        return _then(
            f"{best} is the only row: name others to compare it with, or train it for longer:", "train", *options
        )
    beside = {0: "no other row comes close", 1: "one more does not differ from it significantly"}.get(
        same, f"{same} more do not differ from it significantly, so take the fastest of them"
    )
    return _then(f"{best} is best here; {beside}. Train it for longer:", "train", *options)


def after_data(
    contradictions: int, pairs: int, named: NamedPairs, *, obstacle: str = "", alone: bool = False
) -> Conclusion:
    """What a look at pairs means.

    Args:
        contradictions: labels that contradict others.
        pairs: number of pairs.
        named: where they are, and how they are read.
        obstacle: why no parts can be cut from them, if so.
        alone: whether all are duplicates.
    """
    if contradictions * 20 > pairs:
        return _then(
            f"{contradictions:,} labels contradict others, which no model can learn: correct them first. To write "
            "them to a file:",
            *("data", *named.data, *named.reading_words(), "--contradictions", "mend.csv"),
        )
    if alone:
        return _then(
            "All are duplicates: they can be trained on, with labelled pairs for validation:",
            *("train", *named.words(), "--validation", LABELLED),
        )
    if obstacle:
        return Conclusion(f"They cannot be trained on: {obstacle}.")
    few = ", but so few give wide intervals (label more)" if pairs < 1000 else ""
    return _then(f"They can be trained on{few}:", "train", *named.words())


def after_embed(model: object, folder: Path) -> Conclusion:
    """What embeddings are for."""
    from qpairs.models.base import LOOK

    # a second look reads texts, in candidates that a folder of embeddings is not made for
    alone = ("--no-reranker",) if Path(str(model), LOOK).exists() else ()
    return Conclusion(
        "Next, index the vectors to search them, or find the duplicates among them:",
        (
            ("index", folder, "--output", folder.with_name("idx")),
            ("dedupe", model, folder, *alone, "--output", folder.with_name("dedup")),
        ),
    )


def after_index(count: int, recall: float | None, index: object) -> Conclusion:
    """What an index can do.

    Args:
        count: questions in it.
        recall: share of the nearest that a search finds; None if it compares with all.
        index: its folder.
    """
    if not count:
        return _then("The index is empty; add embeddings:", "index", index, "--add", "EMBEDDINGS")
    search = ("search", index, "How do I ...?")
    if recall is not None and recall < 0.95:
        missed = max(1, round(100 * (1 - recall)))
        return _then(
            f"A search misses about {missed} of the 100 nearest questions; if that is too many, rebuild the index "
            "with --kind exact. To search it:",
            *search,
        )
    return _then("To search it:", *search)


def after_questions(asked: int, known: int, index: object, model: object, *, reranker: bool = True) -> Conclusion:
    """What the answers of a search mean.

    Args:
        asked: questions that were searched for.
        known: those with a hit that is called a duplicate.
        index: the folder of the index.
        model: of the model.
        reranker: whether it took its second look.
    """
    alone = () if reranker else ("--no-reranker",)
    labelling = ("serve", model, "--index", index, "--labels", "labels.csv", *alone)
    if not known:
        which = "It has" if asked == 1 else f"None of the {asked:,} questions has"
        return _then(
            f"{which} no duplicate in the index, according to the model; if one of the hits above is one, label such "
            "pairs and calibrate:",
            *labelling,
        )
    if asked == 1:
        return _then("The question is in the index already; if the verdict is wrong, label such pairs:", *labelling)
    return _then(
        f"{known:,} of {asked:,} questions are in the index already, and {asked - known:,} are new; if verdicts are "
        "wrong, label such pairs:",
        *labelling,
    )


def after_export(
    before: float,
    after: float,
    kind: str,
    output: object,
    *,
    searches: bool = True,
    checkpoint: object = "",
    speed: float | None = None,
) -> Conclusion:
    """What an export is good for.

    Args:
        before: F1 of the checkpoint on the pairs that both were compared on.
        after: likewise, of the export.
        kind: its format.
        output: its folder.
        searches: whether it has vectors to search with; a cross-encoder has none.
        checkpoint: the folder that was exported.
        speed: how many times as fast as the checkpoint it is here, where that was measured.
    """
    slower = speed is not None and speed < 1
    model = checkpoint if slower else output
    use = ("serve", model) if searches else ("predict", model, "PAIRS.csv", "--output", "SCORED.csv")
    if slower:
        return _then(
            "No format is faster here than the checkpoint: use the checkpoint, or the export where torch is missing:",
            *use,
        )
    if before - after > 0.01:
        other = "onnx" if kind != "onnx" else "onnx-int8"
        return _then(
            f"The export is {before - after:.3f} F1 worse on these pairs: try --format {other}, or use it if speed "
            "matters more:",
            *use,
        )
    return _then("On these pairs it is as good as the checkpoint, and can replace it:", *use)


def after_learning_curve(gain: float, low: float, pairs: int, options: Sequence[str]) -> Conclusion:
    """What a learning curve means.

    Args:
        gain: F1 that twice the pairs are predicted to add.
        low: end of its 95 % interval.
        pairs: twice the pairs.
        options: that name the same pairs to a comparison.
    """
    if low <= 0:
        return _then(
            "The curve does not show whether more labels of this kind help: repeat with more --seeds, or try other "
            "losses and encoders first:",
            *("compare", *options),
        )
    if gain < 0.01:
        return _then(
            "More labels of this kind add little; other losses and encoders may add more:", "compare", *options
        )
    return Conclusion(f"More labels help: label up to about {pairs:,} pairs in all, and draw the curve again.")


def after_dedupe(
    pairs: int,
    found: tuple[float, float] | None,
    labelled: bool,
    model: object,
    output: object,
    *,
    folder: bool = False,
) -> Conclusion:
    """What the duplicates of a corpus mean.

    Args:
        pairs: at or above the threshold.
        found: expected precision and recall among all pairs of the corpus; None where they are not known.
        labelled: whether they rest on labels.
        model: that found them.
        output: the folder with the results.
        folder: whether the corpus is a folder of embeddings.
    """
    if not pairs:
        how = "a lower --threshold may find some" if folder else "--dry-run shows what lower thresholds would find"
        learn = "" if labelled or folder else ", and qpairs start learns from your answers which of them are"
        return Conclusion(f"No two questions are called duplicates; {how}{learn}.")
    mend = ("serve", model, "--clusters", output)
    if found is None:
        known, more = ("hardly known", "more") if labelled else ("not known", "some")
        return _then(
            f"How many of the pairs are right is {known}: label {more} for qpairs calibrate --corpus --labels, or "
            "look through the clusters and correct them:",
            *mend,
        )
    right, share = (round(100 * value) for value in found)
    fewer = "above a higher --threshold" if folder else "--dry-run shows at which --threshold"
    then = f"{fewer} fewer are wrong, and fewer are found" if right < 95 else "what is kept can be used"
    doubt = "" if labelled else " by the scores alone"
    return _then(
        f"Of 100 pairs called duplicates in this corpus about {right} are{doubt}, and of 100 duplicates in it about "
        f"{share} are found: {then}; correct the clusters:",
        *mend,
    )


def after_trade_offs(chosen: float | None, words: Sequence[object]) -> Conclusion:
    """What to do with the thresholds of a dry run.

    Args:
        chosen: the threshold that is taken; None where none stands out.
        words: of the same command, without its dry run.
    """
    if chosen is None:
        return Conclusion("No threshold stands out: choose one by looking at pairs, with --threshold and --output.")
    return _then(
        f"The threshold will be {chosen:.3f}, unless --threshold or --precision sets another:",
        *(*words, "--output", "dedup"),
    )


def after_serve(
    index: bool,
    labels: object,
    model: object,
    *,
    session: bool = False,
    read_only: bool = False,
    takes_files: bool = False,
) -> Conclusion:
    """What a running service is for.

    Args:
        index: whether there is one.
        labels: file of the labels that are given on the page; None where none are kept.
        model: its folder.
        session: whether a file is labelled, to whose labels the verdict is fitted automatically.
        read_only: whether no labels are asked for.
        takes_files: whether the page takes a file of questions.
    """
    stop = "Ctrl-C stops it."
    if takes_files:
        return Conclusion(f"{stop} Open the address to find the duplicates in a file of questions, or to compare two.")
    if not index:
        return Conclusion(
            f"Open the address to compare two questions; to search, too, name an index with --index. {stop}"
        )
    if read_only:
        return Conclusion(f"Open the address to search. {stop}")
    if session:
        return Conclusion(
            f"Open the address to search, and to find the duplicates in the file by answering some pairs. {stop}"
        )
    if labels is None:
        return Conclusion(f"Open the address to search; with --labels FILE the page asks for labels, too. {stop}")
    return _then(
        f"{stop} Open the address to search and to label; after some hundred labels, fit the verdict:",
        *("calibrate", model, "--corpus", "QUESTIONS", "--labels", labels, "--output", "calibrated"),
    )


def after_calibrate(output: object, pairs: NamedPairs, questions: Sequence[object]) -> Conclusion:
    """What to try a calibrated model on.

    Args:
        output: its folder.
        pairs: labelled pairs that it was fitted to; none if it has no source.
        questions: the words that name the corpus that it was fitted to; none if there is none.
    """
    judge = ("evaluate", output, *pairs.like("OTHERS.csv").words())
    look = ("dedupe", output, *questions, "--dry-run")
    if not questions:
        return _then("Evaluate it on pairs that it was not fitted to:", *judge)
    if not pairs.data:
        return _then("See what it finds in the corpus:", *look)
    return Conclusion(
        "Evaluate it on pairs that it was not fitted to, and see what it finds in the corpus:", (judge, look)
    )
