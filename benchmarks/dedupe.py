"""Finds planted duplicates among 100,000 and 1,000,000 questions, beside sentence-transformers and semhash.

    python benchmarks/dedupe.py --data F.parquet --json OUT [--model CHECKPOINT] [--sizes 100000,1000000]

F holds question1, question2, is_duplicate. Its distinct questions are varied to reach a size: the beginning of one goes
with the end of another. One question in twenty is a planted duplicate: another one with two words or two letters
exchanged, or with an opening. All contenders get the same vectors and the same threshold, each in a process of its own.
Without --model, a static encoder with GloVe is trained on F first; without --threshold, it is the similarity that each
question has one other above, on average, at the largest size. A contender that would take more than --limit seconds for
a size is run at twice the size before instead, and its time is extrapolated.

Up to 100,000 questions, all are then compared with all, to count the pairs that a contender missed, and those that it
gave though they lie below the threshold.

Last, the largest corpus is indexed and searched, one question at a time.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from machine import circumstances, status
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.commands.terminal import quiet
from qpairs.models.base import Model
from qpairs.retrieval.dedupe import dedupe
from qpairs.retrieval.embed import embed
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.matches import find_matches

PLANTED = 20  # one question in so many
COMPARED = 100_000  # questions, up to which all are compared with all
OPENINGS = ("Please tell me:", "Quick question:", "Hello,", "I wonder,")
QUERIES = 300
console = Console(width=140)

Pairs = NDArray[np.int64]  # (m, 2) rows
Vectors = NDArray[np.float32]  # (n, d)


# The corpus


def varied(questions: list[str], rng: np.random.Generator) -> Iterator[str]:
    """The questions, then the first half of one with the second half of another, without end; all distinct."""
    seen = set()
    cut = [question.split() for question in questions]
    for number in range(100 * len(questions) ** 2):
        if number < len(questions):
            text = questions[number]
        else:
            head, tail = (cut[row] for row in rng.integers(len(cut), size=2))
            text = " ".join(head[: (len(head) + 1) // 2] + tail[len(tail) // 2 :])
        if (key := " ".join(text.casefold().split())) not in seen:
            seen.add(key)
            yield text


def again(question: str, rng: np.random.Generator) -> str:
    """The same question in a few other letters or words."""
    words = question.split()
    way, at = rng.integers(3), int(rng.integers(max(1, len(words) - 1)))
    if way == 0 and len(words) > 2:
        words[at], words[at + 1] = words[at + 1], words[at]
    elif way == 1 and len(words[at]) > 3:
        words[at] = words[at][:1] + words[at][2] + words[at][1] + words[at][3:]
    else:
        words.insert(0, str(rng.choice(OPENINGS)))
    return " ".join(words)


def corpus(questions: list[str], size: int, rng: np.random.Generator) -> tuple[list[str], Pairs]:
    """So many distinct questions, and which of them (p, 2) are the same by construction."""
    fresh = varied(questions, rng)
    texts = [next(fresh) for _ in range(size - size // PLANTED)]
    seen, planted = {text.casefold() for text in texts}, []
    while len(texts) < size:
        row = int(rng.integers(size - size // PLANTED))
        text = again(texts[row], rng)
        if text.casefold() not in seen:
            seen.add(text.casefold())
            planted.append((row, len(texts)))
            texts.append(text)
    return texts, np.array(planted)


# The contenders: vectors (n, d), texts (n,) and a threshold -> pairs


def run_qpairs(vectors: Vectors, texts: list[str], threshold: float) -> tuple[Pairs, float]:
    """Pairs and clusters; its own estimate of the recall comes second."""
    found = dedupe(texts, lambda _: vectors, threshold)
    return np.stack([found.pairs.left, found.pairs.right], axis=1), found.pairs.recall


def run_sentence_transformers(vectors: Vectors, texts: list[str], threshold: float) -> tuple[Pairs, float]:
    """Its mining of paraphrases, with room for 4 pairs a question."""
    import torch
    from sentence_transformers.util import paraphrase_mining_embeddings

    found = paraphrase_mining_embeddings(torch.from_numpy(vectors), max_pairs=4 * len(vectors))
    return np.array([(i, j) for score, i, j in found if score >= threshold]).reshape(-1, 2), math.nan


def run_semhash(vectors: Vectors, texts: list[str], threshold: float) -> tuple[Pairs, float]:
    """Its deduplication; the pairs are the neighbours that it looks up for that."""
    from semhash import SemHash

    index = SemHash.from_embeddings(vectors, texts, model=None)  # type: ignore[arg-type]  # never asked to encode
    query, kept = index.index.query_threshold, list[Any]()

    def remembered(*arguments: Any, **options: Any) -> Any:
        kept.extend(query(*arguments, **options))
        return kept

    index.index.query_threshold = remembered  # type: ignore[method-assign]
    index.self_deduplicate(threshold)
    left = np.repeat(np.arange(len(kept)), [len(rows) for rows, _ in kept])
    right = np.concatenate([rows for rows, _ in kept]).astype(np.int64)
    ends = np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)
    return np.unique(ends[left != right], axis=0), math.nan


CONTENDERS: dict[str, Callable[..., tuple[Pairs, float]]] = {
    "qpairs": run_qpairs,
    "sentence-transformers": run_sentence_transformers,
    "semhash": run_semhash,
}


def contend(name: str, folder: Path, size: int, threshold: float) -> dict[str, Any]:
    """A line of the results, measured in this process."""
    vectors = np.load(folder / f"{size}.npy")
    texts = (folder / f"{size}.txt").read_text(encoding="utf-8").split("\n")
    planted = np.load(folder / f"{size}.planted.npy")
    CONTENDERS[name](vectors[:100], texts[:100], threshold)  # what it imports is neither its time nor its memory
    before = status("VmRSS")
    start = time.perf_counter()
    pairs, estimate = CONTENDERS[name](vectors, texts, threshold)
    seconds = time.perf_counter() - start
    peak = status("VmHWM") - before
    given, expected = (ends[:, 0] * size + ends[:, 1] for ends in (pairs, planted))
    right = np.isin(given, expected).sum()
    missed = below = None
    if size <= COMPARED:
        truth = find_matches(vectors, threshold, recall=1)
        whole = truth.left * size + truth.right
        missed, below = len(np.setdiff1d(whole, given)), len(np.setdiff1d(given, whole))
    return {
        "name": name,
        "size": size,
        "seconds": seconds,
        "gib": peak / 2**30,
        "pairs": len(pairs),
        "recall": right / len(planted),
        "precision": right / max(1, len(pairs)),
        "missed": missed,
        "below": below,
        "estimate": None if math.isnan(estimate) else estimate,
    }


def growth(rows: list[dict[str, Any]], otherwise: float = 2.0) -> float:
    """The exponent between the last two sizes."""
    if len(rows) < 2:
        return otherwise
    a, b = rows[-2:]
    return math.log(b["seconds"] / a["seconds"]) / math.log(b["size"] / a["size"])


# Search


def measure_search(embeddings: Embeddings, vectors: Vectors, queries: NDArray[np.float32]) -> dict[str, Any]:
    """Time of one search, and the share of the nearest 10 that it finds; the queries are not in the index."""
    import faiss

    from qpairs.retrieval.index import NEAREST, build_index, open_index

    start = time.perf_counter()
    made = build_index(embeddings, embeddings.folder.parent / "index")
    seconds = time.perf_counter() - start
    index = open_index(embeddings.folder.parent / "index").questions
    taken, found = [], []
    for query in np.concatenate([queries, queries])[:, None]:  # the first half warms up
        start = time.perf_counter()
        (hits,) = index.search(query, NEAREST)
        taken.append(1000 * (time.perf_counter() - start))
        found.append(np.array([hit.similarity for hit in hits]))
    exact, _ = faiss.knn(queries, vectors, NEAREST, metric=faiss.METRIC_INNER_PRODUCT)
    right = [(row >= least - 1e-4).sum() for row, least in zip(found[: len(queries)], exact[:, -1], strict=True)]
    return {
        "vectors": len(vectors),
        "dimension": made.dimension,
        "kind": made.kind,
        "effort": made.state["effort"],
        "build_seconds": seconds,
        "ms_median": float(np.median(taken[len(queries) :])),
        "ms_95": float(np.quantile(taken[len(queries) :], 0.95)),
        "recall_at_10": float(np.minimum(right, NEAREST).mean() / NEAREST),
    }


# All of it


def prepare(data: Path, model: Path | None, sizes: list[int], folder: Path) -> tuple[Model, Embeddings, list[str]]:
    """Writes texts, vectors and planted pairs of each size; tells model, largest corpus and questions to search for."""
    table = pandas.read_parquet(data)
    questions = list(dict.fromkeys(" ".join(q.split()) for q in [*table["question1"], *table["question2"]]))
    questions = [questions[row] for row in np.random.default_rng(0).permutation(len(questions)) if questions[row]]
    if model is None:
        model = folder / "model"
        qpairs.train(data=str(data), encoder="static", vectors="glove", epochs=1, evaluations=1, output=str(model))
    loaded = qpairs.load(model)
    for size in sizes:
        texts, planted = corpus(questions, size, np.random.default_rng(size))
        (folder / f"{size}.txt").write_text("\n".join(texts), encoding="utf-8")
        embeddings = embed(loaded, folder / f"{size}.txt", folder / f"{size}")
        np.save(folder / f"{size}.npy", embeddings.matrix())
        np.save(folder / f"{size}.planted.npy", planted)
    rng = np.random.default_rng(1)
    return loaded, embeddings, [again(texts[row], rng) for row in rng.integers(len(texts), size=QUERIES)]


def usual_threshold(vectors: Vectors) -> float:
    """The similarity that one other question is above, on average."""
    rows = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 500), replace=False)
    similarity = vectors[rows] @ vectors.T  # (sample, n)
    similarity[np.arange(len(rows)), rows] = -1
    return float(np.partition(similarity, -len(rows), axis=None)[-len(rows)])


def show(rows: list[dict[str, Any]], search: dict[str, Any], threshold: float) -> None:
    """Prints the results."""
    table = Table(title=f"Duplicates at or above {threshold:.3f}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "questions", "seconds", "grows as", "GiB", "pairs", "missed", "below", "planted found"):
        table.add_column(column, justify="right" if column else "left")
    figures = {"gib": "{:.2f}", "pairs": "{:,}", "missed": "{:,}", "below": "{:,}", "recall": "{:.4f}"}
    for number, row in enumerate(rows):
        same = [other for other in rows[: number + 1] if other["name"] == row["name"]]
        table.add_row(
            row["name"],
            f"{row['size']:,}",
            f"{row['seconds']:,.1f}" + (" (extrapolated)" if row["extrapolated"] else ""),
            f"n^{growth(same):.2f}" if len(same) > 1 else "",
            *("" if row.get(key) is None else form.format(row[key]) for key, form in figures.items()),
        )
    console.print(table)
    console.print(
        f"\nsearch of {search['vectors']:,} x {search['dimension']} ({search['kind']}, effort {search['effort']}, "
        f"built in {search['build_seconds']:.0f} s): {search['ms_median']:.2f} ms, 95 % within "
        f"{search['ms_95']:.2f} ms, recall@10 {search['recall_at_10']:.3f}",
        highlight=False,
    )


def main(
    data: Annotated[Path | None, typer.Option(help="Parquet file of labelled pairs.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    model: Annotated[Path | None, typer.Option(help="A checkpoint; without it, static with GloVe is trained.")] = None,
    sizes: Annotated[str, typer.Option(help="Questions, with commas, rising.")] = "100000,1000000",
    threshold: Annotated[float | None, typer.Option(help="Cosine from which on a pair is one.")] = None,
    contenders: Annotated[str, typer.Option(help="Which, with commas.")] = ",".join(CONTENDERS),
    limit: Annotated[float, typer.Option(help="Seconds that a contender may take.")] = 3600,
    work: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Runs the contenders, prints a table and writes JSON."""
    if work:
        print(json.dumps(contend(**json.loads(work) | {"folder": Path(json.loads(work)["folder"])})))
        return
    if data is None:
        raise typer.BadParameter("--data is needed")
    counts = sorted(map(int, sizes.split(",")))
    counts = sorted({*counts, *(2 * count for count in counts[:-1])})  # where one is run that cannot go further
    with quiet(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured_on = circumstances()
        loaded, embeddings, queries = prepare(data, model, counts, folder)
        vectors = embeddings.matrix()
        limit_at = usual_threshold(vectors) if threshold is None else threshold
        rows: list[dict[str, Any]] = []

        def run(name: str, size: int) -> dict[str, Any]:
            work = {"name": name, "folder": temporary, "size": size, "threshold": limit_at}
            command = [sys.executable, __file__, "--work", json.dumps(work)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return {**json.loads(done.stdout.splitlines()[-1]), "extrapolated": False}

        for name in contenders.split(","):
            own: list[dict[str, Any]] = []
            for size in map(int, sizes.split(",")):
                while own and own[-1]["seconds"] * (size / own[-1]["size"]) ** growth(own) > limit:
                    if len(own) > 1 or 2 * own[-1]["size"] not in counts:
                        seconds = own[-1]["seconds"] * (size / own[-1]["size"]) ** growth(own)
                        own.append({"name": name, "size": size, "seconds": seconds, "extrapolated": True})
                        break
                    own.append(run(name, 2 * own[-1]["size"]))
                    console.log(own[-1])
                else:
                    own.append(run(name, size))
                    console.log(own[-1])
            rows += own
        search = measure_search(embeddings, vectors, loaded.encode(queries))
    show(rows, search, limit_at)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        results = {**measured_on, "threshold": limit_at, "dimension": loaded.dimension, "rows": rows, "search": search}
        json_file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
