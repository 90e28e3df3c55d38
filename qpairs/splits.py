"""The question graph: components, splits that share no question, leaks, and contradictions in the labels.

Questions are nodes and labelled pairs are edges. Two texts that differ in case, spaces and punctuation alone are one
node here, because a model that has seen the one has seen the other.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qpairs.faults import UserError
from qpairs.pairs import Pairs

PARTS = ("train", "validation", "test")
GIANT = 0.2  # share of all pairs from which on a component is too large to be placed as a whole


def canonical(text: str) -> str:
    """The text without case, spaces and punctuation; of nothing but these, the text itself."""
    return re.sub(r"[\W_]+", "", text.casefold()) or text


def canonical_ids(questions: Sequence[str]) -> NDArray[np.int64]:
    """(n_questions,) one number per canonical text, numbered in the order of first appearance."""
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(canonical(q), len(seen)) for q in questions), np.int64, len(questions))


def components(n: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) connected component of each of n nodes under the edges (left[i], right[i])."""
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def question_components(pairs: Pairs) -> NDArray[np.int64]:
    """(n_questions,) component of each question over pairs of either label, canonically equal texts being one."""
    nodes = canonical_ids(pairs.questions)
    return components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left], nodes[pairs.right])[nodes]


def duplicate_components(pairs: Pairs) -> NDArray[np.int64]:
    """(n_questions,) component of each question over the pairs labelled duplicates."""
    same = pairs.labels == 1
    return components(len(pairs.questions), pairs.left[same], pairs.right[same])


@dataclass(frozen=True)
class Split:
    """Three parts that share no question.

    Attributes:
        train, validation, test: the parts.
        fingerprint: 16 hex digits over texts and labels of each part; the order of rows does not change it.
        dropped: pairs left out because they cross parts, or to keep the ratio where some crossed.
        largest: share of the pairs in the largest component of the question graph.
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    fingerprint: str
    dropped: int
    largest: float


def split_pairs(
    pairs: Pairs, *, validation_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> Split:
    """Cuts pairs into train, validation and test that share no question and no component, at one ratio of duplicates.

    Components go, the largest first and equals in an order drawn from `seed`, to the part that is farthest behind in
    pairs of the component's labels. The order of rows does not matter. A component with more than a fifth of all
    pairs cannot be placed whole: it falls apart into its duplicate components, neighbours are kept together, and the
    pairs that cross parts are dropped, with as many of the other label as keep the ratio.

    Args:
        pairs: labelled pairs.
        validation_fraction: share of the pairs for validation.
        test_fraction: share of the pairs for the test; 0 for none.
        seed: of the order among components of equal size.

    Raises:
        UserError: too few components to fill every part with both labels.
    """
    fractions = np.array([1 - validation_fraction - test_fraction, validation_fraction, test_fraction])
    component = question_components(pairs)
    of_pair = component[pairs.left]
    sizes = np.bincount(of_pair, minlength=int(component.max(initial=-1)) + 1)
    largest = float(sizes.max(initial=0) / max(len(pairs), 1))
    giant = int(sizes.argmax()) if largest > GIANT else None
    part = _place(pairs, component, fractions, seed, skip=giant)
    if giant is not None:
        _place_giant(pairs, np.flatnonzero(component == giant), fractions, seed, part)
    sides = part[pairs.left], part[pairs.right]
    crossing = sides[0] != sides[1]
    keep = ~crossing & ~_surplus(pairs, np.where(crossing, -1, sides[0]), seed)
    parts = [pairs.subset(keep & (sides[0] == k)) for k in range(3)]
    for name, fraction, piece in zip(PARTS, fractions, parts, strict=True):
        if fraction > 0 and len(set(piece.labels)) < 2:
            raise UserError(
                f"too few separate groups of questions to split {len(pairs)} pairs: {name} would have "
                f"{len(piece)} pairs, not of both labels; name a part with --validation and --test, or bring more pairs"
            )
    return Split(*parts, fingerprint(parts), len(pairs) - sum(map(len, parts)), largest)


def _order(texts: Sequence[str], seed: int) -> list[bytes]:
    return [hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest() for text in texts]


def _place(
    pairs: Pairs, component: NDArray[np.int64], fractions: NDArray[np.float64], seed: int, skip: int | None
) -> NDArray[np.int64]:
    """(n_questions,) the part of each question, 0 to 2; component `skip` stays in the training part."""
    n = int(component.max(initial=-1)) + 1
    of_pair, ones = component[pairs.left], pairs.labels == 1
    counts = np.stack([np.bincount(of_pair[~ones], minlength=n), np.bincount(of_pair[ones], minlength=n)], 1)  # (n, 2)
    if skip is not None:
        counts[skip] = 0
    keys = _order([canonical(q) for q in pairs.questions], seed)
    key = [b""] * n
    for c, k in zip(component, keys, strict=True):
        key[c] = min(key[c] or k, k)
    wanted = fractions[:, None] * counts.sum(0)[None]  # (3, 2) pairs of either label that each part should get
    placed = np.zeros_like(wanted)
    part = np.zeros(n, dtype=np.int64)
    for c in sorted(range(n), key=lambda c: (-int(counts[c].sum()), key[c])):
        if c != skip and counts[c].sum():
            behind = (wanted - placed) / np.maximum(wanted, 1e-9)  # (3, 2)
            need = np.where(fractions > 0, behind @ counts[c], -np.inf)
            part[c] = int(need.argmax())
            placed[part[c]] += counts[c]
    return part[component]


def _place_giant(
    pairs: Pairs, questions: NDArray[np.int64], fractions: NDArray[np.float64], seed: int, part: NDArray[np.int64]
) -> None:
    """Cuts one component, in place: its duplicate components in breadth-first order, so that few pairs cross."""
    nodes = canonical_ids(pairs.questions)
    ones = pairs.labels == 1
    cluster = components(int(nodes.max()) + 1, nodes[pairs.left[ones]], nodes[pairs.right[ones]])[nodes]
    member = np.zeros(len(pairs.questions), dtype=bool)
    member[questions] = True
    keys = dict(zip(questions.tolist(), _order([canonical(pairs.questions[q]) for q in questions], seed), strict=True))
    first: dict[int, bytes] = {}
    size: dict[int, int] = {}
    for q in questions.tolist():
        c = int(cluster[q])
        first[c], size[c] = min(first.get(c, keys[q]), keys[q]), size.get(c, 0) + 1
    neighbours: dict[int, set[int]] = {c: set() for c in first}
    for a, b in zip(cluster[pairs.left[member[pairs.left]]], cluster[pairs.right[member[pairs.left]]], strict=True):
        neighbours[int(a)].add(int(b))
        neighbours[int(b)].add(int(a))
    queue, order = deque([min(first, key=first.__getitem__)]), dict[int, None]()
    while queue:
        c = queue.popleft()
        if c not in order:
            order[c] = None
            queue.extend(sorted(neighbours[c] - order.keys(), key=first.__getitem__))
    filled = np.cumsum([size[c] for c in order]) / len(questions)
    where = {c: int(f > fractions[2]) + int(f > fractions[2] + fractions[1]) for c, f in zip(order, filled, strict=True)}
    part[questions] = [2 - where[int(cluster[q])] for q in questions]


def _surplus(pairs: Pairs, part: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """(n_pairs,) pairs to leave out of validation and test so that the ratio is again that of the whole."""
    surplus = np.zeros(len(pairs), dtype=bool)
    if not (part == -1).any():
        return surplus
    ratio = pairs.duplicate_ratio
    keys = _order(["\n".join(sorted(map(canonical, pairs.texts(i)))) for i in range(len(pairs))], seed)
    for k in (1, 2):
        rows = {label: np.flatnonzero((part == k) & (pairs.labels == label)) for label in (0, 1)}
        most = {1: round(len(rows[0]) * ratio / (1 - ratio)), 0: round(len(rows[1]) * (1 - ratio) / ratio)}
        for label in (0, 1):
            ordered = sorted(rows[label].tolist(), key=lambda i: keys[i])
            surplus[ordered[most[label] :]] = True
    return surplus


def fingerprint(parts: Sequence[Pairs]) -> str:
    """16 hex digits over canonical texts and labels of the parts, the same in any order of rows and sides."""
    digest = hashlib.sha256()
    for part in parts:
        rows = sorted(
            "\t".join([*sorted(map(canonical, part.texts(i))), str(part.labels[i])]) for i in range(len(part))
        )
        digest.update("\n".join([*rows, "end of part\n"]).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Leak:
    """How much of a part stands in train: questions, and pairs with at least one such question."""

    questions: int
    of_questions: int
    pairs: int
    of_pairs: int


def leak(train: Pairs, part: Pairs) -> Leak:
    """Counts the questions of `part` that stand in `train`, compared without case, spaces and punctuation."""
    known = {canonical(q) for q in train.questions}
    seen = np.array([canonical(q) in known for q in part.questions], dtype=bool)
    touched = seen[part.left] | seen[part.right]
    return Leak(int(seen.sum()), len(seen), int(touched.sum()), len(part))


def contradictions(pairs: Pairs) -> NDArray[np.int64]:
    """Rows of the pairs labelled 0 whose questions the pairs labelled 1 join (a=b, b=c, a≠c; or a=b and a≠b)."""
    nodes = canonical_ids(pairs.questions)
    same = pairs.labels == 1
    cluster = components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left[same]], nodes[pairs.right[same]])[nodes]
    labelled = np.zeros(int(cluster.max(initial=-1)) + 1, dtype=bool)
    labelled[cluster[pairs.left[same]]] = True
    joined = (cluster[pairs.left] == cluster[pairs.right]) & labelled[cluster[pairs.left]]
    return np.flatnonzero((pairs.labels == 0) & joined)
