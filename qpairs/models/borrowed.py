"""What is known about a ready model: its scores on bundled questions, whose duplicates are all known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qpairs import metrics
from qpairs.data.intents import bundled_intents
from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.sources import load_pairs
from qpairs.data.splits import question_components
from qpairs.metrics import Densities, ScoreCounts
from qpairs.models.base import Floats
from qpairs.models.verdict import Verdict, fit_verdict

EVERY = 3  # component of the bundled pairs: so many questions are quickly encoded
READY_SD = 0.9  # of the log odds of a duplicate, between corpora; benchmarks/start.py finds how far they are off


def measured_pairs() -> Pairs:
    """The bundled pairs on which a ready model is measured: whole components, from all domains."""
    pairs = load_pairs("sample")
    component = np.unique(question_components(pairs)[pairs.left], return_inverse=True)[1]
    rows = np.flatnonzero(component % EVERY == 0)
    first, second = zip(*(pairs.texts(int(row)) for row in rows), strict=True)
    return pairs_from_texts(first, second, pairs.labels[rows])


def ready_verdict(pairs: Pairs, vectors: Floats) -> Verdict:
    """The verdict of a ready model.

    Args:
        pairs: bundled pairs.
        vectors: (n, d) of their questions.
    """
    scores = np.einsum("ij,ij->i", vectors[pairs.left], vectors[pairs.right]).clip(-1, 1)
    intents = bundled_intents()
    densities = borrowed_densities(vectors, [intents[question] for question in pairs.questions])
    return replace(fit_verdict(scores, pairs.labels, None, densities=densities), labelled=False)


def borrowed_densities(vectors: Floats, intents: Sequence[str], sd: float = READY_SD) -> Densities:
    """The densities of duplicates, near misses and strangers in bundled questions, with each domain as its own corpus.

    Two questions of one intent are duplicates, two of one family near misses, and two of one domain strangers.

    Args:
        vectors: (n, d) unit vectors of questions.
        intents: (n,) domain/family/intent of each.
        sd: standard deviation of the log odds between corpora.

    >>> vectors = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    >>> densities = borrowed_densities(vectors, [f"travel/{row // 8}/{row // 2}" for row in range(64)])
    >>> densities.borrowed, densities.n, round(densities.per_question, 2)
    (True, 64, 0.5)
    """
    parts = [intent.split("/") for intent in intents]
    domain, family, intent = (
        np.unique(["/".join(part[:depth]) for part in parts], return_inverse=True)[1] for depth in (1, 2, 3)
    )
    corpora = [np.flatnonzero(domain == number) for number in range(domain.max() + 1)]
    counted = [metrics.count_scores(vectors[rows]) for rows in corpora]
    ends = [tuple(rows[side] for side in metrics.pairs_within(family[rows])) for rows in corpora]
    left, right = (np.concatenate(side) for side in zip(*ends, strict=True))
    nearest = np.empty(len(vectors), dtype=np.float32)
    for rows in corpora:
        nearest[rows] = metrics.furthest_hits(vectors[rows], np.arange(len(rows)))
    scores = np.einsum("ij,ij->i", vectors[left], vectors[right]).clip(-1, 1)
    hits = np.mean([scores >= nearest[side] - 1e-6 for side in (left, right)], axis=0)
    pairs, among_nearest = (np.sum(each, axis=0) for each in zip(*((c.counts, c.hits) for c in counted), strict=True))
    counts = ScoreCounts(pairs, len(vectors), among_nearest)
    kinds = (intent[left] == intent[right]).astype(np.int8)
    found = metrics.fit_densities(counts, scores, kinds, family[left], hits)
    return replace(found, domain_sd=sd, borrowed=True)
