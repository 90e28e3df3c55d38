"""Labelled pairs of a question and its changed form, made by rules, to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from qpairs.data.identity import canonical
from qpairs.data.pairs import Pairs, pairs_from_texts
from qpairs.data.perturbations import PERTURBATIONS, perturb, vocabulary_of, warn_of_language


def generate_pairs(pairs: Pairs, share: float, seed: int, taken: Iterable[str] = ()) -> tuple[Pairs, dict[str, int]]:
    """Pairs of a question and its changed form: duplicates by invariant rules, non-duplicates by altering ones.

    The kinds of rule take turns, so that each gives the same number of pairs until it fits no further question. A
    changed question is neither in `pairs` nor in `taken`, compared without case, spaces and punctuation; it may equal
    its own origin in this sense.

    Args:
        pairs: the pairs whose questions are changed.
        share: number of pairs to generate, as a share of the given ones.
        seed: of the choice.
        taken: further known questions, such as those of the validation and test parts.

    Returns:
        The pairs, fewer than asked for if the rules fit no further question; kind -> number of its pairs.
    """
    warn_of_language(pairs.questions, "augment")
    random = np.random.default_rng(seed)
    vocabulary = vocabulary_of(pairs.questions)
    known = {canonical(text) for text in (*pairs.questions, *taken)}

    def changes(kind: str) -> Iterator[tuple[str, str]]:
        for question in map(pairs.questions.__getitem__, random.permutation(len(pairs.questions)).tolist()):
            changed = perturb(question, kind, vocabulary, random)
            if changed and (canonical(changed) not in known or canonical(changed) == canonical(question)):
                known.add(canonical(changed))
                yield question, changed

    sources = {kind: changes(kind) for kind in PERTURBATIONS}
    made: list[tuple[str, str, str]] = []
    wanted = round(share * len(pairs))
    while sources and len(made) < wanted:
        for kind in list(sources)[: wanted - len(made)]:
            found = next(sources[kind], None)
            if found:
                made.append((*found, kind))
            else:
                del sources[kind]
    labels = [int(PERTURBATIONS[kind].same) for *_, kind in made]
    counts = Counter(kind for *_, kind in made)
    return pairs_from_texts([q for q, *_ in made], [c for _, c, _ in made], labels), dict(counts)
