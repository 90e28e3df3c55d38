"""Selects the pairs of a corpus that people label, in three ways."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from qpairs.data.identity import canonical, pair_key
from qpairs.models.base import Model
from qpairs.models.shortened import shorten
from qpairs.retrieval.dedupe import require_one_tower
from qpairs.retrieval.index import Index
from qpairs.retrieval.index.base import Hit
from qpairs.retrieval.search import corpus_setting, query_side, require_searchable
from qpairs.serving.label_file import Row
from qpairs.serving.label_strata import Frame, draw_pairs, nearest_questions
from qpairs.serving.label_texts import Texts, clean

Choice = Literal["stratified", "random", "threshold"]

SAMPLE_SIZE = 2000  # questions whose neighbours are searched
NEIGHBOURS = 5  # of each question, for the choice `threshold`


class Candidate(NamedTuple):
    """A pair to label, and the probability that one draw of its choice gives it; nan if the choice is not random."""

    question1: str
    question2: str
    probability: float


Candidates = Mapping[Texts, Candidate]  # by `pair_key`, in the order in which they are labelled


def pairs_to_label(index: Index, model: Model, seed: int = 0) -> dict[Choice, Candidates]:
    """Pairs of different questions, for each choice, by `pair_key`, in the order in which they are labelled.

    With the choice `stratified`, the pairs are drawn at random from all pairs of the corpus, equally often from each of
    several ranges of the score (`label_strata.draw_pairs`): their labels estimate precision and recall in the corpus.
    With `random`, they are those of random questions with their nearest neighbour, which a search shows first.
    With `threshold`, pairs nearest the threshold for the corpus come first: their labels are the most informative, but
        not a random sample.

    All are pairs of a sample of questions, those with the smallest hashes, so that adding or deleting questions hardly
    changes the sample.

    Args:
        index: the corpus.
        model: that made the index.
        seed: of all random choices.

    Raises:
        UserError: the index is of another model, or the model has two towers.
    """
    require_one_tower(model)
    require_searchable(index, model)
    texts = {canonical(text): clean(text) for text in index.questions.texts()}
    key = seed.to_bytes(8, "big")
    sample = heapq.nsmallest(SAMPLE_SIZE, texts, key=lambda text: hashlib.blake2b(text.encode(), key=key).digest())
    frame = Frame(sample, sorted(texts.keys() - set(sample)))
    if not sample:
        return {"stratified": {}, "random": {}, "threshold": {}}
    vectors = model.encode([texts[question] for question in sample], query_side(index))
    found = nearest_questions(index, shorten(vectors, index.manifest.dimension), frame)
    found = [{other: hit for other, hit in hits.items() if other in texts} for hits in found]
    return {
        "stratified": _stratified(found, frame, texts, seed),
        "random": _random(index, model, found, frame, texts),
        "threshold": _by_distance(found, frame, texts, corpus_setting(index, model).threshold),
    }


def mark_drawn(rows: Sequence[Row], choice: Choice, candidates: Candidates, skipped: Iterable[Texts]) -> list[Row]:
    """The rows, marked with how they were drawn, after the last one was answered.

    A random choice marks all pairs up to the one just answered: these are a random sample, even if one of them was
    answered under another choice before. It marks none if an earlier pair still has no answer. A pair that was drawn by
    both random choices is `stratified`.

    Args:
        rows: labelled pairs, oldest first.
        choice: that selected the last pair.
        candidates: of the choice.
        skipped: keys of skipped pairs.
    """
    *others, last = rows
    key = pair_key(last)
    if key not in candidates:
        return list(rows)
    if choice == "threshold":
        return [*others, last._replace(drawn=choice)]
    before = set(itertools.takewhile(key.__ne__, candidates))
    if not before <= {*map(pair_key, others), *skipped}:
        return list(rows)
    sample, marked = before | {key}, []
    for row in rows:
        candidate = candidates.get(pair_key(row))
        if candidate and row.drawn != "stratified" and pair_key(row) in sample:
            row = row._replace(drawn=choice, probability=candidate.probability)
        marked.append(row)
    return marked


def _stratified(
    found: Sequence[Mapping[str, Hit]], frame: Frame, texts: Mapping[str, str], seed: int
) -> dict[Texts, Candidate]:
    scores: dict[Texts, float] = {}
    for question, hits in zip(frame.sample, found, strict=True):
        for other, hit in hits.items():
            pair = (question, other) if question < other else (other, question)
            scores[pair] = max(hit.similarity, scores.get(pair, -math.inf))
    drawn = draw_pairs(scores, frame, seed)
    return {pair: Candidate(texts[pair[0]], texts[pair[1]], probability) for pair, probability in drawn.items()}


def _random(
    index: Index, model: Model, found: Sequence[Mapping[str, Hit]], frame: Frame, texts: Mapping[str, str]
) -> dict[Texts, Candidate]:
    """Each sampled question with its nearest one; drawn by each end whose nearest is the other with probability 1/n."""
    nearest = {question: next(iter(hits), "") for question, hits in zip(frame.sample, found, strict=True)}
    ends = sorted({other for other in nearest.values() if other} - nearest.keys())
    if ends:
        vectors = shorten(model.encode([texts[end] for end in ends], query_side(index)), index.manifest.dimension)
        for end, hits in zip(ends, index.questions.search(vectors, 1 + NEIGHBOURS), strict=True):
            nearest[end] = next((other for hit in hits if (other := canonical(hit.text)) != end), "")
    pairs: dict[Texts, Candidate] = {}
    for question in frame.sample:
        if other := nearest[question]:
            both = nearest[other] == question
            probability = (1 + both) / len(texts)
            pairs.setdefault(pair_key((question, other)), Candidate(texts[question], texts[other], probability))
    return pairs


def _by_distance(
    found: Sequence[Mapping[str, Hit]], frame: Frame, texts: Mapping[str, str], threshold: float
) -> dict[Texts, Candidate]:
    """Each sampled question with its nearest `NEIGHBOURS`, those nearest the threshold first."""
    distances = [
        (abs(hit.similarity - threshold), texts[question], texts[other])
        for question, hits in zip(frame.sample, found, strict=True)
        for other, hit in list(hits.items())[:NEIGHBOURS]
    ]
    pairs: dict[Texts, Candidate] = {}
    for _, one, other in sorted(distances):
        pairs.setdefault(pair_key((one, other)), Candidate(one, other, math.nan))
    return pairs
