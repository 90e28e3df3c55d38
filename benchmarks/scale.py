"""Finds duplicates end to end, texts in and clusters out, beside semhash; and out of core, in memory with a limit.

    python benchmarks/scale.py --data F.parquet --model MODEL --json OUT [--sizes 500000,1000000,2000000] [--memory 4]
    python benchmarks/scale.py --data F.parquet --model MODEL --json OUT --end-to-end [--sizes 100000] [--static FOLDER]

F holds question1, question2, is_duplicate; corpora are made of its questions as in `dedupe.py`. MODEL is a checkpoint,
or a ready model: a static one, such as a SentenceTransformer that model2vec distilled, encodes a million in minutes.

Out of core: `qpairs embed`, then `qpairs dedupe` on its folder, in a process that cannot take more than --memory GiB
of its own (RLIMIT_DATA; what is mapped from files counts in the largest resident size, which is measured). An exponent
of growth is fitted over all sizes by least squares on logarithms, and time and memory are extrapolated to 10 million.

End to end: texts in, clusters or kept texts out, encoding included. Each contender runs in a process of its own with
texts, model and threshold: qpairs with MODEL; semhash with the model2vec model in the folder --static, with MODEL, and
with its own default model where that can be loaded; and qpairs after a first pass of MinHash.
"""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from dedupe import corpus
from machine import circumstances, status
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.core.progress import Progress
from qpairs.retrieval.embed import embed
from qpairs.retrieval.large import dedupe_embeddings

AIM = 10_000_000  # questions, that time and memory are extrapolated to
FITTED = ("seconds", "cpu_seconds", "gib_anonymous", "gib_resident")
console = Console(width=140)


# Out of core


def out_of_core(folder: Path, model: str, threshold: float, memory: float) -> dict[str, Any]:
    """Time of each stage and peak memory of `dedupe` on a folder of embeddings, in this process."""
    loaded = qpairs.load(model)
    limit = int(memory * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    began: dict[str, float] = {}
    used: dict[str, float] = {}

    def watch(now: Progress) -> None:
        began.setdefault(now.stage, time.perf_counter())
        used["anonymous"] = max(used.get("anonymous", 0), status("RssAnon"))

    start, before = time.perf_counter(), time.process_time()
    found = dedupe_embeddings(
        loaded, folder / "emb", folder / "out", threshold=threshold, kind="parquet", on_progress=watch
    )
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    ends = [*list(began.values())[1:], start + seconds]
    return {
        "name": "out of core",
        "size": found.summary["rows"],
        "seconds": seconds,
        "cpu_seconds": processor,
        "stages": {stage: end - at for (stage, at), end in zip(began.items(), ends, strict=True)},
        "gib_anonymous": used["anonymous"] / 2**30,
        "gib_resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "gib_limit": memory,
        "pairs": found.summary["pairs"],
        "clusters": found.summary["clusters"],
        "kept": found.summary["kept"],
        "recall": found.summary["search_recall"],
    }


def fitted(rows: list[dict[str, Any]], key: str) -> tuple[float, float]:
    """Exponent of growth, and what the figure becomes for `AIM` questions."""
    sizes, values = (np.log([row[name] for row in rows]) for name in ("size", key))
    slope, level = np.polyfit(sizes, values, 1)
    return float(slope), float(np.exp(level + slope * math.log(AIM)))


# End to end


def planted_recall(clusters: np.ndarray[Any, Any], planted: np.ndarray[Any, Any]) -> float:
    """Share of the planted duplicates that are in the cluster of their original."""
    return float((clusters[planted[:, 0]] == clusters[planted[:, 1]]).mean())


def of_qpairs(texts: list[str], model: str, threshold: float, _: Path) -> np.ndarray[Any, Any]:
    """(n,) the question that represents each text."""
    found = qpairs.dedupe_corpus(model, texts, threshold=threshold).found
    return np.asarray(found.representative[found.question])


def of_minhash(texts: list[str], model: str, threshold: float, _: Path) -> np.ndarray[Any, Any]:
    """The same after a first pass: texts with equal MinHash bands of 3-grams are one, before any is encoded."""
    head = minhash_heads(texts)
    first, place = np.unique(head, return_inverse=True)
    found = qpairs.dedupe_corpus(model, [texts[row] for row in first], threshold=threshold).found
    return np.asarray(found.representative[found.question])[place]


def minhash_heads(texts: list[str], hashes: int = 32, band: int = 8, seed: int = 0) -> np.ndarray[Any, Any]:
    """(n,) the first text with an equal band of `band` MinHashes of its 3-grams of letters, through others.

    Two texts of Jaccard similarity s share one of 4 bands of 8 with probability 1 - (1 - s^8)^4: 0.57 at 0.8, 0.97 at
    0.95 (Broder, On the resemblance and containment of documents, 1997).
    """
    from qpairs.retrieval.union_find import components

    rng = np.random.default_rng(seed)
    factor = (rng.integers(1, 2**63, hashes, dtype=np.uint64) << np.uint64(1)) | np.uint64(1)
    shift = rng.integers(0, 2**63, hashes, dtype=np.uint64)
    signatures = np.empty((len(texts), hashes), np.uint64)
    for row, text in enumerate(texts):
        letters = np.frombuffer(text.casefold().encode("utf-32-le"), np.uint32).astype(np.uint64)
        if len(letters) < 3:
            letters = np.pad(letters, (0, 3 - len(letters)))
        grams = letters[:-2] * np.uint64(1_000_003) ** 2 + letters[1:-1] * np.uint64(1_000_003) + letters[2:]
        signatures[row] = (grams[:, None] * factor + shift).min(axis=0)

    def edges() -> Any:
        for start in range(0, hashes, band):
            _, first, place = np.unique(
                signatures[:, start : start + band], axis=0, return_index=True, return_inverse=True
            )
            yield np.arange(len(texts)), first[place.ravel()]

    return components(len(texts), edges())


def of_semhash(texts: list[str], _: str, threshold: float, static: Path) -> np.ndarray[Any, Any]:
    """(n,) the text that semhash kept for each one, by a model2vec model."""
    from model2vec import StaticModel

    return semhash_heads(texts, StaticModel.from_pretrained(static), threshold)


def of_semhash_default(texts: list[str], _: str, threshold: float, __: Path) -> np.ndarray[Any, Any]:
    """The same by the model that semhash takes if none is given."""
    return semhash_heads(texts, None, threshold)


class Ours:
    """A qpairs model as semhash wants an encoder."""

    def __init__(self, model: str) -> None:
        self.model = qpairs.load(model)

    def encode(self, inputs: Any, **_: Any) -> Any:
        """Unit vectors (n, d)."""
        return self.model.encode(list(inputs))


def of_semhash_ours(texts: list[str], model: str, threshold: float, _: Path) -> np.ndarray[Any, Any]:
    """The same by the model of qpairs."""
    return semhash_heads(texts, Ours(model), threshold)


def semhash_heads(texts: list[str], model: Any, threshold: float) -> np.ndarray[Any, Any]:
    """(n,) the row of the text that represents each one."""
    from semhash import SemHash

    result = SemHash.from_records(texts, model=model).self_deduplicate(threshold)
    row = {text: number for number, text in enumerate(texts)}
    heads = np.arange(len(texts))
    for filtered in result.filtered:
        if filtered.duplicates:
            heads[row[filtered.record]] = heads[row[filtered.duplicates[0][0]]]
    return heads


CONTENDERS = {
    "qpairs": of_qpairs,
    "semhash, static": of_semhash,
    "semhash, model of qpairs": of_semhash_ours,
    "semhash, default model": of_semhash_default,
    "MinHash, then qpairs": of_minhash,
}


def contend(name: str, folder: Path, size: int, model: str, threshold: float, static: Path) -> dict[str, Any]:
    """A line of the results, measured in this process."""
    texts = (folder / f"{size}.txt").read_text(encoding="utf-8").split("\n")
    planted = np.load(folder / f"{size}.planted.npy")
    try:
        CONTENDERS[name](texts[:200], model, threshold, static)  # what it imports is not its time
    except Exception as error:
        return {"name": name, "size": size, "failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    start, before = time.perf_counter(), time.process_time()
    heads = CONTENDERS[name](texts, model, threshold, static)
    return {
        "name": name,
        "size": size,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - before,
        "gib_resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "kept": len(np.unique(heads)),
        "planted": planted_recall(heads, planted),
    }


# All of it


def write_corpora(data: Path, sizes: list[int], folder: Path) -> None:
    """The texts and planted pairs of each size."""
    table = pandas.read_parquet(data)
    questions = list(dict.fromkeys(" ".join(q.split()) for q in [*table["question1"], *table["question2"]]))
    questions = [questions[row] for row in np.random.default_rng(0).permutation(len(questions)) if questions[row]]
    for size in sizes:
        texts, planted = corpus(questions, size, np.random.default_rng(size))
        (folder / f"{size}.txt").write_text("\n".join(texts), encoding="utf-8")
        np.save(folder / f"{size}.planted.npy", planted)


def in_a_process(**work: Any) -> dict[str, Any]:
    """Runs a piece of work in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--work", json.dumps(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {**json.loads(done.stdout.splitlines()[-1])}


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the results."""
    forms = {"size": "{:,}", "seconds": "{:,.1f}", "cpu_seconds": "{:,.1f}", "gib_anonymous": "{:.2f}"}
    forms |= {"gib_resident": "{:.2f}", "pairs": "{:,}", "kept": "{:,}", "planted": "{:.4f}", "recall": "{:.5f}"}
    table = Table(box=None, pad_edge=False)
    for column in ("", *forms):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        cells = ("" if row.get(key) is None else form.format(row[key]) for key, form in forms.items())
        table.add_row(row["name"] + (f" ({row['failed'][:60]})" if "failed" in row else ""), *cells)
    console.print(table)


def main(
    data: Annotated[Path | None, typer.Option(help="Parquet file of labelled pairs.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    model: Annotated[str, typer.Option(help="A checkpoint, or a ready model.")] = "minilm",
    sizes: Annotated[str, typer.Option(help="Questions, with commas, rising.")] = "500000,1000000,2000000",
    threshold: Annotated[float, typer.Option(help="Cosine from which on a pair is one.")] = 0.93,
    memory: Annotated[float, typer.Option(help="GiB that the process may take of its own.")] = 4,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="Compare with semhash, encoding included.")] = False,
    static: Annotated[Path, typer.Option(help="Folder of a model2vec model.")] = Path("static"),
    contenders: Annotated[str, typer.Option(help="Which, with semicolons.")] = "; ".join(CONTENDERS),
    folder: Annotated[Path | None, typer.Option(help="For the files; without it, a temporary one.")] = None,
    work: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measures, prints a table and writes JSON."""
    if work:
        given = json.loads(work)
        run = contend if "name" in given else out_of_core
        paths = {key: Path(given[key]) for key in ("folder", "static") if key in given}
        print(json.dumps(run(**given | paths)))
        return
    if data is None:
        raise typer.BadParameter("--data is needed")
    counts, rows = sorted(map(int, sizes.split(","))), list[dict[str, Any]]()
    measured_on: dict[str, Any] = {**circumstances(), "model": model, "threshold": threshold}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        for size in counts:
            write_corpora(data, [size], place)
            if end_to_end:
                for name in contenders.split("; "):
                    rows.append(
                        in_a_process(
                            name=name,
                            folder=str(place),
                            size=size,
                            model=model,
                            threshold=threshold,
                            static=str(static),
                        )
                    )
                    console.log(rows[-1])
                    keep(json_file, measured_on, rows)
                continue
            own = place / f"{size}"
            start = time.perf_counter()
            measured_on["dimension"] = embed(model, place / f"{size}.txt", own / "emb").dimension
            encoding = time.perf_counter() - start
            rows.append(in_a_process(folder=str(own), model=model, threshold=threshold, memory=memory))
            rows[-1]["encoding_seconds"] = encoding
            shutil.rmtree(own)
            console.log(rows[-1])
            keep(json_file, measured_on, rows)
    show(rows)
    for key in FITTED if "cpu_seconds_growth" in measured_on else ():
        exponent, at_aim = measured_on[f"{key}_growth"], measured_on[f"{key}_at_{AIM}"]
        console.print(f"{key}: grows as n^{exponent:.2f}; {at_aim:,.1f} at {AIM:,} questions, extrapolated")


def keep(json_file: Path | None, measured_on: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes what is known so far; growth is fitted from two sizes on."""
    if len(rows) > 1 and "stages" in rows[0]:
        for key in FITTED:
            measured_on[f"{key}_growth"], measured_on[f"{key}_at_{AIM}"] = fitted(rows, key)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({**measured_on, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
