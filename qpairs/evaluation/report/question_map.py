"""The section with the map: questions in the plane by t-SNE, with pairs as lines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qpairs.data.pairs import Pairs
from qpairs.data.splits import duplicate_components
from qpairs.evaluation.charts import LETTER, Axis, Dot, Line, Mark, Name, legend, plot
from qpairs.evaluation.mistakes import Analysis
from qpairs.models.base import Tables

MAPPED = 1_000  # questions on the map at most
SIZE = (760, 560)
LONGEST = 300  # characters of a question in a tooltip
NAMES, NAMED, TOGETHER = (
    12,
    3,
    0.12,
)  # names at most, of components of so many questions, half of them so near the middle
SHORT = 34  # characters of a name


def question_map(found: Analysis, tables: Tables | None, collapsed: bool, seed: int) -> str:
    """The map, or why there is none.

    Args:
        found: the analysis.
        tables: embeddings of its questions, from `score_pairs`; None for a model without vectors.
        collapsed: whether the similarities do not vary.
        seed: of the choice of questions and of t-SNE.
    """
    pairs = found.pairs
    if tables is None:
        return "<p>There is no map: a cross-encoder has no vectors.</p>"
    if not importlib.util.find_spec("sklearn"):
        return "<p>The map needs scikit-learn: pip install scikit-learn.</p>"
    questions = chosen_questions(pairs, found.wrong, MAPPED, seed)
    if collapsed or len(questions) < 5:
        return "<p>There is no map: too few questions, or all have the same vector.</p>"
    rows, columns = tables
    vectors = rows if columns is rows else np.concatenate([rows, columns], axis=1)
    place = dict(zip(questions.tolist(), layout(vectors[questions], seed).tolist(), strict=True))
    component = duplicate_components(pairs)
    chart = plot(
        f"Map of {len(questions):,} questions, those with the same meaning near each other",
        Axis("", 0, 1),
        Axis("", 0, 1),
        [*_links(found, place, component), *_dots(found, place, component), *_names(found, place, component)],
        SIZE,
    )
    return (
        f"<p>{len(questions):,} of {len(pairs.questions):,} questions, chosen to show mistakes and whole "
        "components of duplicates. Questions with similar embeddings are near each other (t-SNE: long distances "
        "mean little). A ring marks a question of a mistake, a line connects a pair. The largest components that "
        "lie together have a name, the shortest of their questions. Point at a question to read it and "
        "to see its component, or use the arrow keys."
        f'</p>\n<figure><div class="map">{chart}</div>'
        + legend(
            {
                "bar main": "has duplicates",
                "bar other": "has none",
                "found": "duplicates found",
                "missed": "duplicates missed",
                "wrong": "false positives",
            }
        )
        + "</figure>"
    )


def _links(found: Analysis, place: Mapping[int, Sequence[float]], component: NDArray[np.int64]) -> list[Mark]:
    """Lines between duplicates and false positives on the map, the mistakes on top."""
    links: dict[str, list[Mark]] = {"found": [], "wrong": [], "missed": []}
    for row, ends in enumerate(zip(found.pairs.left.tolist(), found.pairs.right.tolist(), strict=True)):
        duplicates, wrong = found.pairs.labels[row] == 1, bool(found.wrong[row])
        if (duplicates or wrong) and all(end in place for end in ends):
            xs, ys = zip(*(place[end] for end in ends), strict=True)
            style = "wrong" if not duplicates else "missed" if wrong else "found"
            links[style].append(Line(xs, ys, style, str(component[ends[0]]) if duplicates else ""))
    return [mark for marks in links.values() for mark in marks]


def _dots(found: Analysis, place: Mapping[int, Sequence[float]], component: NDArray[np.int64]) -> list[Mark]:
    """The questions of the map; the style shows whether they have duplicates, and belong to a mistake."""
    pairs, dots, size = found.pairs, list[Mark](), np.bincount(component)
    mistakes: dict[int, str] = {}
    for label, style in ((0, "wrong"), (1, "missed")):
        rows = found.wrong & (pairs.labels == label)
        mistakes |= dict.fromkeys([*pairs.left[rows].tolist(), *pairs.right[rows].tolist()], style)
    for question, (x, y) in place.items():
        group, others = component[question], int(size[component[question]]) - 1
        known = f"component {group}: {others} known duplicate{'s' * (others > 1)}" if others else "no known duplicate"
        tooltip = f"{pairs.questions[question][:LONGEST]}\n{known}"
        style = f"{'joined' if others else 'alone'} {mistakes.get(question, '')}"
        dots.append(Dot(x, y, style.strip(), tooltip, radius=4, group=str(group)))
    return dots


def _names(found: Analysis, place: Mapping[int, Sequence[float]], component: NDArray[np.int64]) -> list[Mark]:
    """Names of compact components of duplicates, the largest first, where they do not overlap."""
    shown = np.array(list(place))
    groups, sizes = np.unique(component[shown], return_counts=True)
    names = list[Name]()
    for group in groups[np.argsort(-sizes, kind="stable")][: int((sizes >= NAMED).sum())].tolist():
        members = shown[component[shown] == group].tolist()
        points = np.array([place[member] for member in members])
        middle = np.median(points, axis=0)
        if np.median(np.linalg.norm(points - middle, axis=1)) > TOGETHER:
            continue
        text = min((found.pairs.questions[member] for member in members), key=len)
        x, y = middle.tolist()
        name = Name(x, y, text if len(text) <= SHORT else f"{text[: SHORT - 1].rstrip()}…")
        if len(names) < NAMES and not any(_meet(name, other) for other in names):
            names.append(name)
    return list(names)


def _meet(one: Name, other: Name) -> bool:
    """Whether two names would overlap."""
    width = LETTER * (len(one.text) + len(other.text)) / 2 / SIZE[0]
    return abs(one.x - other.x) < width and abs(one.y - other.y) < 20 / SIZE[1]


def chosen_questions(pairs: Pairs, wrong: NDArray[np.bool_], most: int, seed: int = 0) -> NDArray[np.int64]:
    """The questions to map, by whole duplicate components; up to half of them are for the mistakes.

    Args:
        pairs: labelled pairs.
        wrong: (n,) whether the verdict on each is wrong.
        most: most questions; a component that no longer fits is left out.
        seed: of the order in which components are tried.
    """
    component, random = duplicate_components(pairs), np.random.default_rng(seed)
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    rows = random.permutation(np.flatnonzero(wrong))
    mistaken = np.stack([component[pairs.left[rows]], component[pairs.right[rows]]], axis=1).tolist()
    several, alone = list[list[int]](), list[list[int]]()
    for one in random.permutation(len(members)).tolist():
        (several if len(members[one]) > 1 else alone).append([one])
    taken, n = dict[int, None](), 0
    for groups, room in ((mistaken, most // 2), (several, most), (mistaken, most), (alone, most)):
        for group in groups:
            new = [one for one in dict.fromkeys(group) if one not in taken]
            more = sum(len(members[one]) for one in new)
            if n + more <= room:
                taken.update(dict.fromkeys(new))
                n += more
    return np.concatenate([np.empty(0, dtype=np.int64), *(members[one] for one in sorted(taken))])


def layout(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Places (n, 2) in the unit square, by t-SNE (van der Maaten and Hinton, 2008).

    Runs in one thread: the order in which several threads sum changes the last digits, which t-SNE amplifies.

    Args:
        vectors: (n, d) unit vectors, at least 5.
        seed: of the optimisation.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        found = TSNE(init="pca", perplexity=min(30, (len(vectors) - 1) / 3), random_state=seed).fit_transform(vectors)
    span = np.ptp(found, axis=0)
    return np.asarray((found - found.min(axis=0)) / np.where(span > 0, span, 1), dtype=np.float64)
