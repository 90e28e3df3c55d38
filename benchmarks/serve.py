"""Requests per second and latencies of `qpairs serve`, beside a plain service, and its memory under load.

    python benchmarks/serve.py --checkpoint C --data F.parquet --json OUT [--model EXPORT] [--minutes 10]

Three services search the first `--questions` questions of F for later questions: `qpairs serve` with an export (without
`--model`, that of `export --format fastest`), the same with each request encoded alone, and the service that one builds
by hand, of FastAPI and sentence-transformers (`plain_service.py`) with the checkpoint. 1, 8 and 64 clients, in a
process of their own, query the services in turn, each as soon as it has its answer. With `--minutes`, 8 clients then
search and score for that time, and the memory of the service after the first tenth of it is compared with that at the
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs.export.fastest import export_fastest

CLI = Path(__file__).parent.parent / "cli.py"
SERVICES = {"micro-batches": 64, "each request alone": 1}  # texts that are encoded together
PLAIN = "FastAPI + sentence-transformers"
PLAIN_SERVICE = Path(__file__).parent / "plain_service.py"
AIMS = {"p99_ms": (8, 30.0), "requests_per_second": (64, 400.0)}  # figure of `micro-batches`: clients, aim
CLIENTS = (1, 8, 64)
WARM_UP = 2.0  # seconds
COMPARED = 1000  # pairs that the exports are compared on, at most
MEMORY = "process_resident_memory_bytes"
MIB = 2**20
console = Console(width=130)

Body = dict[str, Any]


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """The address of a service in a process of its own, from what it prints first."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
        if not found:
            raise qpairs.UserError(f"{command[0]}: the service did not start")
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def requests(texts: Sequence[str], scores: bool) -> Iterator[tuple[str, Body]]:
    """An endless stream of searches; with `scores`, a pair to score after every third."""
    for number, text in enumerate(itertools.cycle(texts)):
        if scores and number % 4 == 3:
            yield "/score", {"pairs": [[text, texts[number % len(texts) - 1]]]}
        else:
            yield "/search", {"question": text, "k": 10}


def ask(url: str, clients: int, seconds: float, texts: Sequence[str], scores: bool) -> tuple[list[float], float]:
    """Latencies of the requests of some clients, and the duration, in seconds; a status other than 200 is an error."""
    host, port = url.removeprefix("http://").split(":")
    waiting, latencies = requests(texts, scores), list[float]()
    begin = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while (start := time.perf_counter()) < begin + WARM_UP + seconds:
            path, body = next(waiting)
            content = json.dumps(body).encode()
            named = f"Host: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
            head = f"POST {path} HTTP/1.1\r\n{named}"
            writer.write(f"{head}\r\n\r\n".encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            if start >= begin + WARM_UP:
                latencies.append(time.perf_counter() - start)
        writer.close()

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    asyncio.run(all_clients())
    return latencies, time.perf_counter() - begin - WARM_UP


def metric(url: str, name: str) -> float:
    """A figure in the metrics of a service."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)[1])


def mean_batch(url: str) -> tuple[float, float]:
    """Requests so far, and their batches."""
    return metric(url, "qpairs_batch_requests_sum"), metric(url, "qpairs_batch_requests_count")


def measure(pool: Any, urls: dict[str, str], seconds: float, texts: list[str]) -> list[dict[str, Any]]:
    """A row for each number of clients and each service."""
    rows = []
    for clients in CLIENTS:
        for name, url in urls.items():
            before = mean_batch(url) if name in SERVICES else np.zeros(2)
            latencies, took = pool.apply(ask, (url, clients, seconds, texts, False))
            asked, batches = np.subtract(mean_batch(url), before) if name in SERVICES else np.ones(2)
            p50, p99 = np.quantile(latencies, [0.5, 0.99])
            rows.append(
                {
                    "name": name,
                    "clients": clients,
                    "requests_per_second": len(latencies) / took,
                    "p50_ms": 1000 * p50,
                    "p99_ms": 1000 * p99,
                    "requests_per_batch": asked / batches,
                }
            )
            console.log(f"{name}, {clients} clients: {len(latencies) / took:,.0f} requests/s")
    plain = {row["clients"]: row for row in rows if row["name"] == PLAIN}
    for row in rows:
        beside = plain[row["clients"]]
        row["ratio"] = row["requests_per_second"] / beside["requests_per_second"]
        row["p99_ratio"] = row["p99_ms"] / beside["p99_ms"]
    return rows


def endure(pool: Any, url: str, minutes: float, texts: list[str]) -> dict[str, float]:
    """Memory of a service under load in MiB: after a tenth of the time, and at the end."""
    lasting = pool.apply_async(ask, (url, 8, 60 * minutes, texts, True))
    memory = []
    while not lasting.ready():
        lasting.wait(60 * minutes / 40)
        memory.append(metric(url, MEMORY) / MIB)
    latencies, took = lasting.get()
    early, late = np.median(memory[4:8]), np.median(memory[-4:])
    console.log(f"{minutes:g} minutes, {len(latencies):,} requests: {early:,.0f} MiB early, {late:,.0f} MiB in the end")
    return {
        "minutes": took / 60,
        "requests": len(latencies),
        "mib_early": float(early),
        "mib_late": float(late),
        "p99_ms": 1000 * float(np.quantile(latencies, 0.99)),
    }


def encoding_rate(model: Path, texts: Sequence[str]) -> float:
    """Questions per second that the encoder alone reaches, 64 at a time."""
    encoder = qpairs.load(model)
    encoder.encode(texts[:64])
    start = time.perf_counter()
    for first in range(0, len(texts), 64):
        encoder.encode(texts[first : first + 64])
    return len(texts) / (time.perf_counter() - start)


def show(results: dict[str, Any]) -> None:
    """Prints the results."""
    title = (
        f"Searching {results['questions']:,} questions; the encoder alone: {results['encoding_rate']:,.0f} questions/s"
    )
    table = Table(title=title, box=None, pad_edge=False)
    table.add_column("")
    for column in ("clients", "requests/s", "p50 ms", "p99 ms", "requests per batch", "ratio", "ratio of p99"):
        table.add_column(column, justify="right")
    for row in results["rows"]:
        figures = (row["requests_per_second"], row["p50_ms"], row["p99_ms"], row["requests_per_batch"])
        ratios = (row["ratio"], row["p99_ratio"])
        table.add_row(
            row["name"],
            str(row["clients"]),
            *(f"{figure:,.1f}" for figure in figures),
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    console.print(table)
    for aim in results["aims"]:
        console.print(
            f"{aim['figure']} with {aim['clients']} clients: aim {aim['aim']:g}, found {aim['found']:,.1f}",
            highlight=False,
        )
    if memory := results["memory"]:
        console.print(
            f"{memory['minutes']:.1f} minutes of load, {memory['requests']:,} requests: from {memory['mib_early']:,.1f}"
            f" to {memory['mib_late']:,.1f} MiB, p99 {memory['p99_ms']:.1f} ms",
            highlight=False,
        )


def main(
    checkpoint: Annotated[Path, typer.Option(help="Of an encoder; the plain service runs it.")],
    data: Annotated[Path, typer.Option(help="Pairs, whose questions are searched and asked.")],
    model: Annotated[Path | None, typer.Option(help="An export of it; without it, the fastest one is made.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    questions: Annotated[int, typer.Option(help="Questions in the index.")] = 100_000,
    asked: Annotated[int, typer.Option(help="Other questions, which are asked.")] = 20_000,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 20.0,
    minutes: Annotated[float, typer.Option(help="Of load for the memory; 0: none.")] = 0.0,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on = circumstances()
    texts = list(qpairs.load_pairs(data, labelled=False).questions)
    kept, others = texts[:questions], texts[questions : questions + asked]
    if len(others) < asked:
        raise qpairs.UserError(f"{data}: has {len(texts):,} questions, not {questions + asked:,}; lower --questions")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "q.txt").write_text("\n".join(" ".join(text.split()) for text in kept), encoding="utf-8")
        if model is None:
            model = folder / "export"
            pairs = qpairs.load_pairs(data)
            some = pairs.subset(np.arange(min(COMPARED, len(pairs))))
            made = export_fastest(checkpoint, model, data=some, max_loss=1.0)
            console.log(f"exported as {made.format}")
        embeddings = qpairs.embed(model, folder / "q.txt", folder / "emb")
        qpairs.build_index(embeddings, folder / "index")
        np.save(folder / "vectors.npy", embeddings.matrix())
        console.log(f"{len(kept):,} questions indexed")
        rate = encoding_rate(model, others[:2048])
        urls = {}
        for name, batch in SERVICES.items():
            index = shutil.copytree(folder / "index", folder / f"index-{batch}")
            options = ("--index", str(index), "--port", "0", "--batch", str(batch))
            urls[name] = stack.enter_context(serving(str(CLI), "serve", str(model), *options))
        plain = (PLAIN_SERVICE, checkpoint, folder / "vectors.npy", folder / "q.txt")
        urls[PLAIN] = stack.enter_context(serving(*map(str, plain)))
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(1))
        rows = measure(pool, urls, seconds, others)
        memory = endure(pool, urls["micro-batches"], minutes, others) if minutes else {}
    found = {row["clients"]: row for row in rows if row["name"] == "micro-batches"}
    aims = [
        {"figure": figure, "clients": clients, "aim": aim, "found": found[clients][figure]}
        for figure, (clients, aim) in AIMS.items()
    ]
    results = {
        **measured_on,
        "questions": len(kept),
        "encoding_rate": rate,
        "aims": aims,
        "rows": rows,
        "memory": memory,
    }
    show(results)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
