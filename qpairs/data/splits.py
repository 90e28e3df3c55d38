"""The question graph: components, splits that share no question, leaks, and contradictions in the labels.

Questions are nodes and labelled pairs are edges. Two texts that are the same question (`identity`) are one node,
because a model trained on one has in effect seen the other.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpairs.core.exceptions import UserError
from qpairs.data.identity import canonical, canonical_ids, numbered
from qpairs.data.pairs import Pairs

PARTS = ("train", "validation", "test")
GIANT = 0.2  # share of all pairs above which a component is cut


def components(n: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) connected component of each of n nodes under the edges (left[i], right[i])."""
    from scipy.sparse import coo_array  # slow to import, and a prediction needs none of it
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left)), (left, right)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def question_components(pairs: Pairs) -> NDArray[np.int64]:
    """(n_questions,) component of each question over pairs of either label; canonically equal texts are one node."""
    return _components_over(pairs, np.ones(len(pairs), dtype=bool), canonical_ids(pairs.questions))


def _components_over(pairs: Pairs, rows: NDArray[np.bool_], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_questions,) component of each question over the pairs at `rows`; texts of one node count as one question."""
    return components(int(nodes.max(initial=-1)) + 1, nodes[pairs.left[rows]], nodes[pairs.right[rows]])[nodes]


def duplicate_components(pairs: Pairs) -> NDArray[np.int64]:
    """(n_questions,) component of each question over the pairs labelled duplicates."""
    same = pairs.labels == 1
    return components(len(pairs.questions), pairs.left[same], pairs.right[same])


@dataclass(frozen=True)
class Split:
    """Three parts that share no question.

    Attributes:
        train, validation, test: the parts.
        fingerprint: 16 hex digits over texts and labels of each part; independent of the order of rows and sides.
        dropped: number of pairs left out because they cross parts, or to keep the label ratio.
        largest: share of the pairs in the largest component of the question graph.
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    fingerprint: str
    dropped: int
    largest: float


def split_pairs(pairs: Pairs, *, validation_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0) -> Split:
    """Cuts pairs into train, validation and test that share no question and no component, with equal label ratios.

    Components are placed from the largest to the smallest, equal ones in an order drawn from `seed`: each goes to the
    part that has room and lacks most pairs of its labels. The order of rows and of the two sides does not matter. A
    component with more than a fifth of all pairs is cut: the parts are grown over its duplicate components, and pairs
    that cross parts are dropped, with as many duplicates as keep the ratio.

    Args:
        pairs: labelled pairs.
        validation_fraction: share of the pairs for validation.
        test_fraction: share of the pairs for the test; 0 for none.
        seed: of the order of components of equal size, and of where a large one is cut.

    Raises:
        UserError: fractions that leave nothing for training, or too few components to fill every part with both labels.

    >>> from qpairs.data.pairs import pairs_from_texts
    >>> first, second = [f"a {k}" for k in range(20)], [f"b {k}" for k in range(20)]
    >>> split = split_pairs(pairs_from_texts(first, second, [0, 1] * 10))
    >>> len(split.train), len(split.validation), len(split.test), split.dropped
    (16, 2, 2, 0)
    """
    fractions = np.array([1 - validation_fraction - test_fraction, validation_fraction, test_fraction])
    if not (fractions[0] > 0 and fractions[1] >= 0 and fractions[2] >= 0):
        raise UserError(f"validation and test cannot be {validation_fraction} and {test_fraction} of the pairs")
    if not 0 < pairs.duplicate_ratio < 1:
        raise UserError(
            f"the {len(pairs)} pairs to split are not of both labels; duplicates and non-duplicates are needed"
        )
    texts = [canonical(question) for question in pairs.questions]
    nodes = numbered(texts)
    component = _components_over(pairs, np.ones(len(pairs), dtype=bool), nodes)
    sizes = np.bincount(component[pairs.left], minlength=int(component.max(initial=-1)) + 1)
    giants = np.flatnonzero(sizes > GIANT * len(pairs))
    keys = _keys(texts, seed)
    part = _place_components(pairs, component, fractions, keys, giants)
    for giant in giants:
        _cut_component(pairs, nodes, np.flatnonzero(component == giant), fractions, keys, part)
    part_of_pair = np.where(part[pairs.left] == part[pairs.right], part[pairs.left], -1)
    part_of_pair[_surplus(pairs, part_of_pair, seed)] = -1
    parts = [pairs.subset(part_of_pair == k) for k in range(3)]
    for name, fraction, piece in zip(PARTS, fractions, parts, strict=True):
        if fraction > 0 and len(set(piece.labels.tolist())) < 2:
            raise UserError(
                f"too few separate groups of questions to split {len(pairs)} pairs: {name} would have {len(piece)} "
                "pairs, not of both labels; name a part with --validation and --test, or add pairs"
            )
    dropped = int((part_of_pair == -1).sum())
    form = dict(zip(pairs.questions, texts, strict=True)).__getitem__
    train, validation, test = parts
    return Split(train, validation, test, fingerprint(parts, form), dropped, float(sizes.max() / len(pairs)))


def _keys(texts: Iterable[str], seed: int) -> list[bytes]:
    """A pseudo-random sort key of each text, which depends on nothing but the text and the seed."""
    return [hashlib.blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest() for text in texts]


def _place_components(
    pairs: Pairs,
    component: NDArray[np.int64],
    fractions: NDArray[np.float64],
    keys: Sequence[bytes],
    giants: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(n_questions,) the part of each question, 0 to 2; the giant components stay in the training part."""
    n = int(component.max(initial=-1)) + 1
    of_pair, ones = component[pairs.left], pairs.labels == 1
    counts = np.stack([np.bincount(of_pair[~ones], minlength=n), np.bincount(of_pair[ones], minlength=n)], 1)  # (n, 2)
    counts[giants] = 0
    key = [b""] * n
    for c, k in zip(component.tolist(), keys, strict=True):
        key[c] = min(key[c] or k, k)
    wanted = np.maximum(fractions[:, None] * counts.sum(0), 1e-9).tolist()  # (3, 2) pairs of either label for each part
    room = [list(row) for row in wanted]  # (3, 2) of these, those still missing
    part = np.zeros(n, dtype=np.int64)
    open_parts = np.flatnonzero(fractions > 0).tolist()
    sizes = counts.tolist()
    for c in sorted(np.flatnonzero(counts.sum(1)).tolist(), key=lambda c: (-sum(sizes[c]), key[c])):
        zeros, duplicates = sizes[c]
        fitting = [k for k in open_parts if sum(room[k]) >= zeros + duplicates]
        best = max(
            fitting or [max(open_parts, key=lambda k: sum(room[k]))],
            key=lambda k: zeros * room[k][0] / wanted[k][0] + duplicates * room[k][1] / wanted[k][1],
        )
        part[c] = best
        room[best][0] -= zeros
        room[best][1] -= duplicates
    return part[component]


def _cut_component(
    pairs: Pairs,
    nodes: NDArray[np.int64],
    questions: NDArray[np.int64],
    fractions: NDArray[np.float64],
    key_of: Sequence[bytes],
    part: NDArray[np.int64],
) -> None:
    """Cuts one component; writes to `part`.

    A region grows over the duplicate components, each time by the one that adds the fewest pairs that leave it; its
    first share is the test part, the next validation, the rest train.
    """
    clusters, cluster = np.unique(_components_over(pairs, pairs.labels == 1, nodes)[questions], return_inverse=True)
    keys = [b""] * len(clusters)
    for c, k in zip(cluster.tolist(), [key_of[q] for q in questions], strict=True):
        keys[c] = min(keys[c] or k, k)
    of_question = np.full(len(pairs.questions), -1)
    of_question[questions] = cluster
    ends = of_question[pairs.left], of_question[pairs.right]
    neighbours: list[list[int]] = [[] for _ in clusters]
    within = np.bincount(ends[0][(ends[0] == ends[1]) & (ends[0] >= 0)], minlength=len(clusters)).tolist()
    for a, b in zip(*(end[ends[0] != ends[1]].tolist() for end in ends), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    added = [len(around) for around in neighbours]
    heap, gained = [(0, min(keys), keys.index(min(keys)))], dict[int, int]()
    while heap:
        c = heapq.heappop(heap)[-1]
        if c not in gained:
            gained[c] = within[c] + (len(neighbours[c]) - added[c]) // 2
            for other in neighbours[c]:
                added[other] -= 2
                heapq.heappush(heap, (added[other], keys[other], other))
    filled = np.cumsum(list(gained.values())) / sum(gained.values())
    of_cluster = np.empty(len(clusters), dtype=np.int64)
    of_cluster[list(gained)] = 2 - (filled > fractions[2]) - (filled > fractions[2] + fractions[1])
    part[questions] = of_cluster[cluster]


def _surplus(pairs: Pairs, part: NDArray[np.int64], seed: int) -> list[int]:
    """The rows to leave out so that each part has the label ratio of all pairs, where pairs (part -1) were dropped."""
    if not (part == -1).any():
        return []
    keys = _keys(("\n".join(sorted(pairs.texts(i))) for i in range(len(pairs))), seed)
    whole, surplus = np.bincount(pairs.labels == 1, minlength=2), list[int]()
    for k in range(3):
        rows = [np.flatnonzero((part == k) & ((pairs.labels == 1) == label)) for label in (0, 1)]
        for label in (0, 1):
            most = round(len(rows[1 - label]) * whole[label] / max(1, whole[1 - label]))
            surplus += sorted(rows[label].tolist(), key=keys.__getitem__)[most:]
    return surplus


def fingerprint(parts: Sequence[Pairs], form: Callable[[str], str] = canonical) -> str:
    """16 hex digits over canonical texts and labels, or grades, of the parts; rows and sides in any order.

    Args:
        parts: pairs of each part.
        form: `canonical`, or a function that looks up its precomputed results.
    """
    digest = hashlib.sha256()
    for part in parts:
        texts = [form(q) for q in part.questions]
        labels = (part.labels if part.grades is None else part.grades).tolist()
        ends = zip(part.left.tolist(), part.right.tolist(), labels, strict=True)
        rows = sorted("\t".join([*sorted((texts[a], texts[b])), str(label)]) for a, b, label in ends)
        digest.update("\n".join([*rows, "end of part\n"]).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Leak:
    """How many questions of a part are in train too, and how many pairs have at least one such question."""

    questions: int
    of_questions: int
    pairs: int
    of_pairs: int


def leak(train: Pairs, part: Pairs, form: Callable[[str], str] = canonical) -> Leak:
    """Counts the questions of `part` that are in `train` too, compared without case, spaces and punctuation.

    Args:
        train: pairs.
        part: other pairs.
        form: as in `fingerprint`.
    """
    return leak_of({form(q) for q in train.questions}, part, form)


def leak_of(known: Set[str], part: Pairs, form: Callable[[str], str] = canonical) -> Leak:
    """Counts the questions of `part` whose `canonical` form is known; `form` as in `fingerprint`."""
    seen = np.array([form(q) in known for q in part.questions], dtype=bool)
    touched = seen[part.left] | seen[part.right]
    return Leak(int(seen.sum()), len(seen), int(touched.sum()), len(part))


def contradictions(pairs: Pairs) -> NDArray[np.int64]:
    """Rows of the pairs labelled 0 whose questions are joined by pairs labelled 1, or are canonically equal.

    For example: a = b, b = c, a ≠ c; or a = b, a ≠ b.
    """
    cluster = _components_over(pairs, pairs.labels == 1, canonical_ids(pairs.questions))
    return np.flatnonzero((pairs.labels == 0) & (cluster[pairs.left] == cluster[pairs.right]))
