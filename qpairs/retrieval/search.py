"""Search: the questions of an index that are nearest to a question, with the verdict on each."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.identity import canonical
from qpairs.data.records import require_texts
from qpairs.metrics import ScoreCounts
from qpairs.models.base import Floats, Model, Side
from qpairs.models.pair_reader import PairReader
from qpairs.models.second_setting import SecondSetting, check_corpus_threshold, second_setting
from qpairs.models.shortened import shorten, shortened_note, verdict_at
from qpairs.models.two_stages import first_stage, second_stage
from qpairs.models.verdict import CorpusSetting, Setting, words
from qpairs.retrieval.index import NEAREST, require_model
from qpairs.retrieval.index.base import Hit, Index
from qpairs.retrieval.second_look import encoder_of, read_hits

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

TWO_KINDS = (
    "the model's two sides are of different kinds, so it has no verdict for a corpus: the verdicts are those for "
    "labelled pairs, and far too certain"
)
HEADINGS = {
    "very likely a duplicate": "Very likely asked before",
    "probably a duplicate": "Probably asked before",
    "perhaps a duplicate": "Perhaps asked before",
    "close, but below the threshold": "Not sure: the nearest question is close, but below the threshold",
    "perhaps related": "Not asked before, as far as the model tells; the nearest question is perhaps related",
    "another question": "Not asked before, as far as the model tells",
}  # verdict on the nearest hit -> what is said of the whole
BLOCK = 8192  # questions that are encoded and searched for at a time


@dataclass(frozen=True)
class Answer:
    """A question that a search found, the probability that it is a duplicate, and the decision.

    `read` says whether the cross-encoder of a model of two stages read it.
    """

    hit: Hit
    probability: float
    duplicate: bool
    read: bool = False

    @property
    def verdict(self) -> str:
        """Decision and probability in words."""
        return words(self.probability, self.duplicate)


def search(
    index: Index,
    model: Model,
    questions: Sequence[str],
    k: int = 10,
    threshold: float | None = None,
    *,
    setting: Setting | None = None,
    on_progress: OnProgress = ignore,
) -> list[list[Answer]]:
    """The nearest k questions of an index for each of some questions, nearest first.

    A model of two stages retrieves with the encoder, reads the hits whose decision this can change, and ranks the most
    probable first.

    Args:
        index: from `open_index`.
        model: that made the vectors of the index.
        questions: to search for.
        k: how many to find.
        threshold: lowest similarity of duplicates, or for a model of two stages their lowest probability; without it,
            that of the setting.
        setting: turns similarities into verdicts, such as `setting_for(index, model).at_precision(0.9)`; without it,
            that of `setting_for`.
        on_progress: the stage reading pairs, for a model of two stages.

    Raises:
        UserError: k is less than 1, or a threshold that no score can have; one text in place of a list; the index is of
            another model, or the model's verdict cannot be read from one cosine.

    >>> found = search(index, checkpoint, ["How do I pay?"], k=3)
    >>> [len(answers) for answers in found]
    [3]
    """
    if k < 1:
        raise UserError(f"search: k is {k}, must be k >= 1")
    if threshold is not None:
        check_corpus_threshold(model, threshold)
    require_searchable(index, model)
    questions = require_texts(questions, "search: questions")
    second = second_stage(model)
    reader = second.second.reader if second else None
    setting = setting or setting_for(index, model)
    if threshold is not None:
        setting = setting.at(threshold)
    found = []
    for start in range(0, len(questions), BLOCK):
        asked = questions[start : start + BLOCK]
        vectors = model.encode(asked, query_side(index))
        found += search_vectors(index, vectors, k, setting, questions=asked, reader=reader, on_progress=on_progress)
    return found


def search_vectors(
    index: Index,
    vectors: Floats,
    k: int | Sequence[int],
    setting: Setting,
    *,
    questions: Sequence[str] = (),
    threads: int | None = None,
    reader: PairReader | None = None,
    most_read: int | None = None,
    on_progress: OnProgress = ignore,
) -> list[list[Answer]]:
    """As `search`, for questions that are encoded already: (q, dimension of the model).

    Args:
        index: from `open_index`.
        vectors: of the questions, by the tower that `query_side` names.
        k: how many to find, of all of them or of each: (q,). What is found of one does not depend on the others.
        setting: turns cosines into verdicts.
        questions: (q,) their texts, or none: a hit that is the same question by `data.identity` needs no verdict, it
            is a duplicate.
        threads: that the search may use; without it, the index decides.
        reader: the cross-encoder, which takes a second look where the setting is a `SecondSetting`; it needs the texts.
        most_read: hits of a question that it reads, at most; None: all that it can change.
        on_progress: the stage reading pairs.
    """
    queries = shorten(vectors, index.manifest.dimension)
    wanted = list(k) if isinstance(k, Sequence) else [int(k)] * len(queries)
    if not (reader and isinstance(setting, SecondSetting)):
        return [
            _judged(row, question, setting.probability(cosines), setting.decide(cosines))
            for row, question in zip(
                _nearest(index, queries, wanted, threads), questions or itertools.repeat(None), strict=False
            )
            for cosines in [[hit.similarity for hit in row]]
        ]
    rows = _nearest(index, queries, [max(own, NEAREST) for own in wanted], threads)  # which are read, and put in order
    looks = read_hits(reader, rows, questions, setting, most=most_read, on_progress=on_progress)
    found = []
    for row, own, question, logits in zip(rows, wanted, questions, looks, strict=True):
        cosines = [hit.similarity for hit in row]
        probability, duplicate = setting.probability(cosines, logits), setting.decide(cosines, logits)
        answers = _judged(row, question, probability, duplicate, np.isfinite(logits))
        found.append(sorted(answers, key=lambda answer: (not answer.duplicate, -answer.probability))[:own])
    return found


def _nearest(index: Index, queries: Floats, wanted: Sequence[int], threads: int | None) -> list[Sequence[Hit]]:
    """The hits of each query, as many as it wants; those of one number at a time, since more candidates find others."""
    rows: list[Sequence[Hit]] = [()] * len(wanted)
    for k in sorted(set(wanted)):
        places = [place for place, own in enumerate(wanted) if own == k]
        for place, hits in zip(places, index.questions.search(queries[places], k, threads=threads), strict=True):
            rows[place] = hits
    return rows


def _judged(
    hits: Sequence[Hit],
    question: str | None,
    probability: NDArray[np.float64],
    duplicate: NDArray[np.bool_],
    read: NDArray[np.bool_] | None = None,
) -> list[Answer]:
    """The verdict on each hit of a question; the same text is a duplicate in any case."""
    key = None if question is None else canonical(question)
    read = np.zeros(len(hits), dtype=np.bool_) if read is None else read
    verdicts = zip(hits, probability.tolist(), duplicate.tolist(), read.tolist(), strict=True)
    return [
        Answer(hit, 1.0, True) if key is not None and canonical(hit.text) == key else Answer(hit, *verdict)
        for hit, *verdict in verdicts
    ]


def corpus_setting(index: Index, model: Model) -> Setting:
    """What similarities mean for any pairs of the questions of an index, not hits alone, without a second look."""
    setting = setting_for(index, first_stage(model))
    return setting.for_pairs() if isinstance(setting, CorpusSetting) else setting


def setting_for(index: Index, model: Model, n: int | None = None) -> Setting:
    """What similarities mean for the hits of searches in an index.

    It is based on the scores that the index was built with, scaled to its present number of questions; for an old index
    without scores, on the number of questions. A model without a verdict for a corpus gives its setting for pairs, and
    a warning is logged. Shortened vectors are read by the model's verdict for their length; where it has none, by that
    for whole vectors, and a warning is logged. For a model of two stages, it is a `SecondSetting` on top of that of its
    encoder. Making it takes a fraction of a second; the index keeps the last one.

    Args:
        index: from `open_index`.
        model: that made the vectors of the index.
        n: questions in it; counted if not given.
    """
    second = second_stage(model)
    if second:
        return second_setting(setting_for(index, second.first, n), second)
    n = max(2, len(index.questions) if n is None else n)  # below, there are no pairs
    verdict = verdict_at(model, index.manifest.dimension)
    made = index.settings.get(n)
    if made and made[0] == verdict:
        return made[1]
    if not index.settings and (note := shortened_note(model, index.manifest.dimension)):
        log.warning(note)
    setting: Setting = verdict.pair
    if verdict.symmetric:
        setting = verdict.search(score_counts(index, n) or n)
    else:
        log.warning(TWO_KINDS)
    index.settings.clear()
    index.settings[n] = verdict, setting
    return setting


def score_counts(index: Index, n: int) -> ScoreCounts | None:
    """The scores of all pairs of an index that has n questions now; None in an old one, which has none.

    >>> index.manifest.scores, score_counts(index, 40)  # an old index
    (None, None)
    """
    manifest = index.manifest
    if manifest.scores is None:
        return None
    counts = ScoreCounts.from_dict(dict(manifest.scores))
    return counts.scaled(max(2, round(counts.n * n / max(manifest.built, 1))))  # repeats are no questions of their own


def heading(answers: Sequence[Answer]) -> str:
    """One line that says whether a question was asked before; it follows from the verdict on the nearest hit.

    Args:
        answers: to one question, nearest first.

    >>> heading([Answer(Hit("7", "How to pay?", 0.9), 0.8, True)])
    'Probably asked before: 1 question is called a duplicate.'
    """
    if not answers:
        return "Not asked before: there are no questions."
    duplicates = sum(answer.duplicate for answer in answers)
    called = "1 question is called a duplicate" if duplicates == 1 else f"{duplicates} questions are called duplicates"
    return HEADINGS[answers[0].verdict] + (f": {called}." if duplicates else ".")


def require_searchable(index: Index, model: Model) -> None:
    """Raises UserError where a model's verdict cannot be read from the cosines to the vectors of an index."""
    encoder = encoder_of(model)
    require_model(index.manifest, encoder.fingerprint, str(index.folder))
    if encoder.verdict.symmetric and not encoder.one_tower:
        raise UserError(
            f"{model.path}: its verdict is the mean of both directions between two towers, but an index has one "
            "tower; train one encoder, or two with --no-symmetric"
        )


def query_side(index: Index) -> Side:
    """The tower that encodes queries."""
    return "left" if index.manifest.side == "right" else "right"


def answers_table(questions: Sequence[str], answers: Sequence[Sequence[Answer]]) -> pandas.DataFrame:
    """A row for each hit: question, rank, id, text, similarity, probability, duplicate, verdict (in words).

    Args:
        questions: that were searched for.
        answers: from `search`.

    >>> table = answers_table(["How do I pay?"], [[Answer(Hit("7", "How to pay?", 0.9), 0.8, True)]])
    >>> table.values.tolist()
    [['How do I pay?', 1, '7', 'How to pay?', 0.9, 0.8, 1, 'probably a duplicate']]
    """
    import pandas

    rows = [
        (question, rank, *dataclasses.astuple(each.hit), each.probability, int(each.duplicate), each.verdict)
        for question, found in zip(questions, answers, strict=True)
        for rank, each in enumerate(found, start=1)
    ]
    columns = ["question", "rank", "id", "text", "similarity", "probability", "duplicate", "verdict"]
    return pandas.DataFrame(rows, columns=columns)
