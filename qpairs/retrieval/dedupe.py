"""Search, the duplicates of a corpus, and clusters of them: over unit vectors, without torch.

Few questions are all compared with all. For many, k-means cuts the space into cells, and a question is compared with
those in the cells next to it. How many cells that must be is read off a sample whose duplicates are found by comparing
it with all; another sample tells what share of the duplicates is found.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, vstack
from threadpoolctl import threadpool_limits

from qpairs.core.exceptions import UserError
from qpairs.data.splits import components
from qpairs.models.base import Model, Side
from qpairs.models.verdict import Setting
from qpairs.retrieval.embeddings import Embeddings, shorten
from qpairs.retrieval.index import Hit, Index, faiss_module, lists_for, require_model

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Block = tuple[NDArray[np.integer], NDArray[np.integer]]  # rows and columns to compare, each with each
Pairs = tuple[Ints, Ints, Floats]  # (m,) rows, columns and cosines
Linkage = Literal["star", "single"]

EXACT = 2_500_000_000  # comparisons, up to which all are made
SIDE = 2048  # rows and columns of a block
TRAINED_ON = 32  # questions for each cell
ROUNDS = 5  # of k-means
MARGIN = 0.05  # where no pair of the sample is divided by cells
MOST_CELLS = 64  # that are near to a question, on average
ROUNDING = 1e-6
SAMPLE = 1024  # questions in each of the two samples
SAMPLED_PAIRS = 16_384
MOST_PAIRS = 30_000_000  # which take two gigabytes to sort
ENCODED = 8192  # texts between two reports of progress

Progress = Callable[[float], None]  # is told what share is done
Item = TypeVar("Item")
Made = TypeVar("Made")


# Pairs


@dataclass(frozen=True)
class Matches:
    """The pairs of questions at or above a threshold.

    Attributes:
        left, right: (m,) rows, sorted; within one corpus left < right.
        similarity: (m,) cosines.
        recall: share of all such pairs that were found: 1 where all were compared, nan where a sample had none.
        sampled: pairs that the recall was measured on; 0 where all were compared.
    """

    left: Ints
    right: Ints
    similarity: Floats
    recall: float = 1.0
    sampled: int = 0

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.left)


_NONE = Matches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class _Sides:
    """What is compared with what: (n, d) unit vectors with (m, d) others, or `within`, with themselves."""

    vectors: Floats
    targets: Floats
    threshold: float
    within: bool


def find_matches(
    vectors: Floats,
    threshold: float,
    *,
    others: Floats | None = None,
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> Matches:
    """All pairs whose cosine is at or above a threshold; where there are very many questions, nearly all of them.

    Args:
        vectors: (n, d) unit vectors.
        threshold: of the cosine.
        others: (m, d) unit vectors to compare them with; without it, they are compared with one another.
        recall: share of the pairs that is to be found where not all can be compared; 1 compares all.
        seed: of samples and cells.
        on_progress: is told what share is done.

    Raises:
        UserError: there are far too many pairs.
    """
    sides = _Sides(vectors, vectors if others is None else others, threshold, within=others is None)
    n, m = len(sides.vectors), len(sides.targets)
    cutting = 2 * (n + m) * lists_for(m)  # comparisons that cells would take, before a pair is found
    if recall >= 1 or n * m <= max(EXACT, cutting):
        return Matches(*_distinct(sides, *_compare(sides, list(_all_blocks(sides)), on_progress)))
    blocks, measured, sampled = _likely_blocks(sides, recall, seed)
    return Matches(*_distinct(sides, *_compare(sides, blocks, on_progress)), measured, sampled)


def _in_threads(work: Callable[[Item], Made], items: Sequence[Item]) -> Iterator[Made]:
    """Like map, by all cores, each of which then multiplies matrices of its own."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(faiss_module().omp_get_max_threads()) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _compare(sides: _Sides, blocks: Sequence[Block], on_progress: Progress = lambda _: None) -> Pairs:
    """The pairs of some blocks, in no order, perhaps twice."""
    sizes = np.cumsum([len(rows) * len(columns) for rows, columns in blocks])
    found: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    pairs = 0
    for size, part in zip(sizes, _in_threads(functools.partial(_compare_block, sides), blocks), strict=True):
        found.append(part)
        pairs += len(part[0])
        if pairs > MOST_PAIRS:
            raise UserError(
                f"over {MOST_PAIRS:,} pairs are at or above {sides.threshold:.3f}; raise --threshold or --precision"
            )
        on_progress(float(size / sizes[-1]))
    left, right, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return left, right, similarity


def _compare_block(sides: _Sides, block: Block) -> Pairs:
    rows, columns = block
    similarity = (sides.vectors[rows] @ sides.targets[columns].T).ravel()  # (rows * columns,)
    at = np.flatnonzero(similarity >= np.float32(sides.threshold))
    left: Ints = rows[at // len(columns)].astype(np.int64)
    right: Ints = columns[at % len(columns)].astype(np.int64)
    values: Floats = similarity[at]
    kept = values.astype(np.float64) >= sides.threshold
    if sides.within:
        kept &= left != right
    return left[kept], right[kept], values[kept].clip(max=1)


def _distinct(sides: _Sides, left: Ints, right: Ints, similarity: Floats) -> Pairs:
    """The pairs, each once, sorted."""
    if sides.within:
        left, right = np.minimum(left, right), np.maximum(left, right)
    _, first = np.unique(left * len(sides.targets) + right, return_index=True)
    return left[first], right[first], similarity[first]


def _spans(n: int) -> list[Ints]:
    """The numbers up to n, so many as a block has on a side at a time."""
    return [np.arange(i, min(i + SIDE, n)) for i in range(0, n, SIDE)]


def _all_blocks(sides: _Sides) -> Iterator[Block]:
    spans = _spans(len(sides.targets))
    for i, rows in enumerate(_spans(len(sides.vectors))):
        for columns in spans[i if sides.within else 0 :]:
            yield rows, columns


def _likely_blocks(sides: _Sides, recall: float, seed: int) -> tuple[list[Block], float, int]:
    """The blocks that hold nearly all pairs, the share of them that they hold, and how many it was measured on.

    A question is near to its own cell, and to each whose centre is less similar to it by a margin at most.
    """
    rng = np.random.default_rng(seed)
    n, m = len(sides.vectors), len(sides.targets)
    cells = lists_for(m)
    kmeans = faiss_module().Kmeans(
        sides.targets.shape[1],
        cells,
        niter=ROUNDS,
        seed=int(rng.integers(2**31)),
        spherical=True,
        max_points_per_centroid=TRAINED_ON,
        min_points_per_centroid=1,
    )
    kmeans.train(sides.targets[np.sort(rng.choice(m, min(m, TRAINED_ON * cells), replace=False))])
    centres = kmeans.centroids  # (cells, d)
    tuning, test = np.array_split(rng.choice(n, min(n, 2 * SAMPLE), replace=False), 2)
    margin = _quantile(_margins(sides, centres, tuning, rng), recall)
    similarity = sides.vectors[tuning] @ centres.T  # (sample, cells)
    gaps = np.sort(similarity.max(axis=1, keepdims=True) - similarity, axis=None)
    margin = min(margin + ROUNDING, float(gaps[min(MOST_CELLS, cells) * len(tuning) - 1]))
    reached = _margins(sides, centres, test, rng) <= margin
    near, home = _near(sides.vectors, centres, margin)
    if not sides.within:
        home = _near(sides.targets, centres, 0.0)[1]
    return list(_cell_blocks(near, home)), float(reached.mean()) if len(reached) else math.nan, len(reached)


def _margins(sides: _Sides, centres: Floats, sample: Ints, rng: np.random.Generator) -> Floats:
    """(p,) for pairs of a sample: the margin at which one of the two is near to the cell of the other."""
    left, right, _ = _compare(sides, [(sample, columns) for columns in _spans(len(sides.targets))])
    some = rng.permutation(len(left))[:SAMPLED_PAIRS]
    rows, columns = sides.vectors[left[some]], sides.targets[right[some]]  # (p, d) each

    def margin(vectors: Floats, others: Floats) -> Floats:
        own, cell = (faiss.knn(side, centres, 1, metric=faiss.METRIC_INNER_PRODUCT) for side in (vectors, others))
        return np.asarray(own[0][:, 0] - np.einsum("ij,ij->i", vectors, centres[cell[1][:, 0]]))

    faiss = faiss_module()
    there = margin(rows, columns)
    return np.minimum(there, margin(columns, rows)) if sides.within else there


def _quantile(margins: Floats, recall: float) -> float:
    """The margin that a share of all pairs stays within, by an exponential fitted to the greatest margins (p,).

    With few pairs, the greatest is too small a margin for those that are not in the sample (Pickands, 1975).
    """
    ordered = np.append(np.zeros(1, np.float32), np.sort(margins))
    tail = min(math.ceil(max(0.1, 1 - recall) * len(margins)), int((margins > ROUNDING).sum()))
    if not tail:
        return MARGIN
    start = float(ordered[-tail - 1])
    scale = float(ordered[-tail:].mean()) - start
    return start + scale * math.log(max(1.0, tail / len(margins) / (1 - recall)))


def _near(vectors: Floats, centres: Floats, margin: float) -> tuple[Any, Ints]:
    """Which cells (n, cells) are near to vectors (n, d), as a sparse matrix by columns, and which are theirs (n,)."""

    def near(rows: Ints) -> tuple[Any, Ints]:
        similarity = vectors[rows] @ centres.T
        least = similarity.max(axis=1, keepdims=True) - np.float32(margin)
        return csr_array(similarity >= least), similarity.argmax(axis=1)

    found, home = zip(*_in_threads(near, _spans(len(vectors))), strict=True)
    return vstack(found, format="csc"), np.concatenate(home)


def _cell_blocks(near: Any, home: Ints) -> Iterator[Block]:
    """For each cell, the rows (n, cells) that it is near to, and the columns (m,) that are at home in it."""
    order, ends = np.argsort(home, kind="stable"), np.cumsum(np.bincount(home, minlength=near.shape[1]))
    for cell, columns in enumerate(np.split(order, ends[:-1])):
        rows = near.indices[near.indptr[cell] : near.indptr[cell + 1]]
        for i in range(0, len(rows), SIDE):
            for j in range(0, len(columns), SIDE):
                yield rows[i : i + SIDE], columns[j : j + SIDE]


# Clusters


def clusters(n: int, pairs: Matches, linkage: Linkage = "star") -> Ints:
    """(n,) the question that stands for each of n questions; itself where it has no duplicates or is the one.

    `star` takes questions by their number of duplicates, then by the sum of the similarities, then by row: one that
    no earlier one is a duplicate of stands for itself, and each other goes to the most similar of these. So all of a
    cluster are duplicates of the one that stands for it, and a long string of likes is cut (the greedy star cover of
    Aslam, Pelekhov and Rus, 2004). `single` lets such strings grow: a cluster is a component of the graph.

    Args:
        n: number of questions.
        pairs: those at or above the threshold.
        linkage: how clusters are made of them.
    """
    edges = coo_array((pairs.similarity, (pairs.left, pairs.right)), shape=(n, n))
    graph = (edges + edges.T).tocsr()
    ends, neighbours = graph.indptr, graph.indices
    order = np.lexsort((-graph.sum(axis=1), -np.diff(ends)))
    if linkage == "single":
        component = components(n, pairs.left, pairs.right)
        _, first = np.unique(component[order], return_index=True)
        stands_for: Ints = order[first][component]
        return stands_for
    taken = np.zeros(n, dtype=np.bool_)
    stands = np.zeros(n, dtype=np.bool_)
    for question in order.tolist():
        if not taken[question]:
            stands[question] = True
            taken[neighbours[ends[question] : ends[question + 1]]] = True
    edges = graph.tocoo()
    member, centre = edges.row, edges.col
    kept = ~stands[member] & stands[centre]
    member, centre, similarity = member[kept], centre[kept], edges.data[kept]
    best = np.lexsort((centre, -similarity, member))
    member, first = np.unique(member[best], return_index=True)
    representative = np.arange(n)
    representative[member] = centre[best][first]
    return representative


# Search


@dataclass(frozen=True)
class Answer:
    """A question that a search found, the probability that it asks the same, and the verdict."""

    hit: Hit
    probability: float
    duplicate: bool


def search(
    index: Index, model: Model, questions: Sequence[str], k: int = 10, threshold: float | None = None
) -> list[list[Answer]]:
    """The nearest k questions of an index for each of some questions, nearest first.

    Args:
        index: from `open_index`.
        model: that made the vectors of the index.
        questions: what is asked.
        k: how many to find.
        threshold: of the verdict; without it, the model's own.

    Raises:
        UserError: the index is of another model, or the model's verdict cannot be read from one cosine.
    """
    require_searchable(index, model)
    setting = model.verdict.pair if threshold is None else model.verdict.pair.at(threshold)
    found = []
    for start in range(0, len(questions), ENCODED):
        vectors = model.encode(questions[start : start + ENCODED], query_side(index))
        found += answers(index, model, vectors, k, setting)
    return found


def require_searchable(index: Index, model: Model) -> None:
    """Raises UserError where a model's verdict cannot be read from the cosines to the vectors of an index."""
    require_model(index.manifest, model.fingerprint, str(index.folder))
    model.verdict.require_cosine(model.path)
    if model.verdict.symmetric and not model.one_tower:
        raise UserError(
            f"{model.path}: its verdict is the mean of both directions between two towers, and an index has one; "
            "train one encoder, or two with --no-symmetric"
        )


def query_side(index: Index) -> Side:
    """The tower that encodes what is asked."""
    return "left" if index.manifest.side == "right" else "right"


def answers(
    index: Index, model: Model, vectors: Floats, k: int = 10, setting: Setting | None = None
) -> list[list[Answer]]:
    """As `search`, for questions that are encoded already: (q, dimension of the model)."""
    setting = setting or model.verdict.pair
    hits = index.questions.search(shorten(vectors, index.manifest.dimension), k, index.manifest.effort)
    found = []
    for row in hits:
        cosines = [hit.similarity for hit in row]
        said = zip(row, setting.probability(cosines).tolist(), setting.decide(cosines).tolist(), strict=True)
        found.append([Answer(hit, probability, duplicate) for hit, probability, duplicate in said])
    return found


# Duplicates of a corpus


@dataclass(frozen=True)
class Deduplicated:
    """The duplicates of a corpus of n rows that are q questions.

    Attributes:
        question: (n,) the question of each row: rows that read the same, but for case and white space, are one.
        first: (q,) the first row of each question.
        asked: pairs of a question and a row of another corpus, the most similar one that asks the same.
        pairs: pairs of questions that ask the same, among those that are not asked in the other corpus.
        representative: (q,) the question that stands for each.
        similarity: (q,) cosine to the question that stands for each.
    """

    question: Ints
    first: Ints
    asked: Matches
    pairs: Matches
    representative: Ints
    similarity: Floats

    @property
    def kept(self) -> Ints:
        """The rows that stand for themselves and are not in the other corpus, in order."""
        alone = self.representative == np.arange(len(self.first))
        alone[self.asked.left] = False
        rows: Ints = self.first[alone]
        return rows


def dedupe(
    texts: Sequence[str],
    encode: Callable[[Sequence[str]], Floats],
    threshold: float,
    *,
    against: Sequence[str] = (),
    linkage: Linkage = "star",
    recall: float = 0.9999,
    seed: int = 0,
    on_progress: Progress = lambda _: None,
) -> Deduplicated:
    """Finds the questions of a corpus that ask the same, and those that another corpus has already.

    Args:
        texts: (n,) the corpus.
        encode: texts to unit vectors, of one tower: `Model.encode`, or `stored` ones.
        threshold: cosine from which on two questions ask the same.
        against: the other corpus.
        linkage: how clusters are made, see `clusters`.
        recall: see `find_matches`.
        seed: see `find_matches`.
        on_progress: is told what share of the comparisons is done.

    Raises:
        UserError: there are far too many pairs.
    """
    question, first = _distinct_texts(texts)
    vectors = encode([texts[row] for row in first])
    matches = functools.partial(find_matches, threshold=threshold, recall=recall, seed=seed, on_progress=on_progress)
    asked = _NONE
    if against:
        _, of_others = _distinct_texts(against)
        found = matches(vectors, others=encode([against[row] for row in of_others]))
        best = np.lexsort((found.right, -found.similarity, found.left))
        _, once = np.unique(found.left[best], return_index=True)
        best = best[once]
        asked = replace(
            found, left=found.left[best], right=of_others[found.right[best]], similarity=found.similarity[best]
        )
    new = np.setdiff1d(np.arange(len(first)), asked.left)
    found = matches(vectors if len(new) == len(first) else vectors[new])
    pairs = replace(found, left=new[found.left], right=new[found.right])
    representative = clusters(len(first), pairs, linkage)
    similarity = np.ones(len(first), dtype=np.float32)
    moved = np.flatnonzero(representative != np.arange(len(first)))
    for rows in np.array_split(moved, len(moved) // SIDE + 1):
        similarity[rows] = np.einsum("ij,ij->i", vectors[rows], vectors[representative[rows]]).clip(max=1)
    return Deduplicated(question, first, asked, pairs, representative, similarity)


def _distinct_texts(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """(n,) the number of each text, where those that differ in case and white space alone are one; (q,) first rows."""
    seen: dict[str, int] = {}
    number = np.fromiter(
        (seen.setdefault(" ".join(t.casefold().split()), len(seen)) for t in texts), np.int64, len(texts)
    )
    return number, np.unique(number, return_index=True)[1]


def require_one_tower(model: Model) -> None:
    """Raises UserError where a pair's sides have encoders of their own, so that cosines in a corpus mean nothing."""
    if not (model.verdict.symmetric and model.one_tower):
        raise UserError(
            f"{model.path}: two towers, or sides of different kinds; a corpus needs one encoder for all of it"
        )


def stored(
    embeddings: Embeddings, model: Model, encode: Callable[[Sequence[str]], Floats] | None = None
) -> Callable[[Sequence[str]], Floats]:
    """Texts to vectors that `qpairs embed` made already; what it did not is encoded.

    Args:
        embeddings: where the vectors are.
        model: that made them.
        encode: encodes the other texts; without it, the model does.

    Raises:
        UserError: another model made them.
    """
    if embeddings.fingerprint != model.fingerprint:
        raise UserError(
            f"{embeddings.folder}: made by the model {embeddings.fingerprint} ({embeddings.model}), "
            f"not by {model.path}; run qpairs embed anew"
        )

    def look_up(texts: Sequence[str]) -> Floats:
        row = {text: i for i, text in enumerate(texts)}
        vectors = np.empty((len(texts), embeddings.dimension), dtype=np.float32)
        missing = np.ones(len(texts), dtype=np.bool_)
        for _, found, block in embeddings.batches():
            rows = np.array([row.get(text, -1) for text in found])
            vectors[rows[rows >= 0]] = block[rows >= 0]
            missing[rows[rows >= 0]] = False
        if missing.any():
            rest = (encode or model.encode)([text for text, lacks in zip(texts, missing, strict=True) if lacks])
            vectors[missing] = shorten(rest, embeddings.dimension)
        return vectors

    return look_up
