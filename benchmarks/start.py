"""Is what `qpairs start` says true? Expected beside found, for each domain of the bundled questions as a corpus.

    python benchmarks/start.py --json OUT [--model minilm] [--labels 60] [--domains travel,health] [--quora FOLDER]

The corpus is the domain as it is, rich in duplicates, or poor in them: each intent keeps one phrasing, or two with
probability --two. The model is a ready one, whose encoder saw none of these questions; what is known of how it scores
duplicates is measured on the other domains alone. Each corpus is judged without labels, and after --labels answers by
the gold intents, given as a person would: through a session, pair by pair. With --quora, the questions of 4,000 of
dev.parquet are judged, too, without labels; they lack many labels, so what is found is a lower bound.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from machine import circumstances
from rich.console import Console
from rich.table import Table

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.data.corpus import read_corpus
from qpairs.data.intents import bundled_intents
from qpairs.data.splits import duplicate_components, question_components
from qpairs.models.base import Model
from qpairs.models.borrowed import borrowed_densities, measured_pairs
from qpairs.retrieval.corpus import DedupeResult, dedupe_corpus
from qpairs.retrieval.index_file import QuestionFile
from qpairs.serving.start import open_session

QUORA = 4000  # questions
console = Console(width=160)


def without(model: Model, domain: str, vectors: Mapping[str, np.ndarray[Any, Any]]) -> Model:
    """The ready model, of which nothing is known from a domain.

    Args:
        model: a ready model.
        domain: that is left out.
        vectors: of the bundled questions.
    """
    intents = bundled_intents()
    others = [text for text in measured_pairs().questions if not intents[text].startswith(f"{domain}/")]
    densities = borrowed_densities(np.stack([vectors[text] for text in others]), [intents[text] for text in others])
    return model.with_verdict(replace(model.verdict, densities=densities), model.scores)


def thinned(questions: Sequence[str], cluster: Mapping[str, str], two: float, seed: int) -> list[str]:
    """The questions with one phrasing of each intent, or two with a probability."""
    rng = np.random.default_rng(seed)
    kept: dict[str, list[str]] = {}
    for row in rng.permutation(len(questions)):
        kept.setdefault(cluster[questions[row]], []).append(questions[row])
    chosen = {text for texts in kept.values() for text in texts[: 2 if rng.random() < two else 1]}
    return [text for text in questions if text in chosen]


def judged(found: DedupeResult, questions: Sequence[str], cluster: Mapping[str, Any]) -> dict[str, Any]:
    """What a deduplication expects, beside what is found."""
    expected = found.expected
    assert expected is not None
    ends = zip(found.pairs.question1, found.pairs.question2, strict=True)
    right = sum(cluster[one] == cluster[other] for one, other in ends)
    sizes = np.unique([str(cluster[text]) for text in questions], return_counts=True)[1]
    duplicates = int((sizes * (sizes - 1) // 2).sum())
    precision, recall = right / max(len(found.pairs), 1), right / max(duplicates, 1)
    scores, same = all_pairs(found, questions, cluster)
    best = metrics.confusion(scores, same, metrics.best_threshold(scores, same)).f1 if same.any() else 0.0
    return {
        "questions": len(questions),
        "duplicates": duplicates,
        "threshold": expected.threshold,
        "pairs": len(found.pairs),
        "expected_precision": expected.precision,
        "precision_interval": expected.precision_interval,
        "precision": precision,
        "expected_recall": expected.recall,
        "recall_interval": expected.recall_interval,
        "recall": recall,
        "f1": 2 * right / max(len(found.pairs) + duplicates, 1),
        "best_f1": best,
    }


def all_pairs(found: DedupeResult, questions: Sequence[str], cluster: Mapping[str, Any]) -> tuple[Any, Any]:
    """Cosines of all pairs, and whether they are duplicates."""
    vectors = found.model.encode(questions)
    number = np.unique([str(cluster[text]) for text in questions], return_inverse=True)[1]
    left, right = np.triu_indices(len(questions), 1)
    return (vectors @ vectors.T)[left, right].clip(-1, 1), number[left] == number[right]


def rows_of(
    model: Model, name: str, questions: Sequence[str], cluster: Mapping[str, Any], labels: int
) -> Iterator[dict[str, Any]]:
    """A corpus without labels, and after some, if there are to be any."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "questions.csv")
        pandas.DataFrame({"question": questions}).to_csv(file, index=False)
        yield {"name": name, "labels": 0, **judged(dedupe_corpus(model, read_corpus(file)), questions, cluster)}
        if not labels:
            return
        with open_session(model, QuestionFile(file), Path(place, "session")) as session:
            while session.answers < labels and (pair := session.state.pair):
                same = cluster[pair.question1] == cluster[pair.question2]
                session.answer(pair, "yes" if same else "no")
            narrower = session.fit.with_more.precision_interval
            found = judged(session.finish(), questions, cluster)
            yield {"name": name, "labels": session.answers, **found, "interval_with_50_more": narrower}


def quora_corpus(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Questions of whole components of Quora's dev part, and the cluster of each."""
    pairs = qpairs.load_pairs(folder / "dev.parquet")
    component, cluster = question_components(pairs), duplicate_components(pairs)
    order = np.random.default_rng(0).permutation(component.max() + 1)[component]
    chosen = np.argsort(order, kind="stable")[:QUORA].tolist()
    return [pairs.questions[row] for row in chosen], {pairs.questions[row]: int(cluster[row]) for row in chosen}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints a line for each corpus, and how often what is found lies inside of its interval."""
    table = Table(title="Expected beside found", title_justify="left", box=None, pad_edge=False)
    names = ("", "labels", "questions", "pairs", "threshold", "precision, expected", "found", "recall, expected")
    for column in (*names, "found", "F1", "best F1"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        figures = []
        for name in ("precision", "recall"):
            low, high = row[f"{name}_interval"]
            figures += [f"{row[f'expected_{name}']:.2f} ({low:.2f} to {high:.2f})", f"{row[name]:.2f}"]
        counts = (
            row["name"],
            str(row["labels"]),
            f"{row['questions']:,}",
            f"{row['pairs']:,}",
            f"{row['threshold']:.3f}",
        )
        table.add_row(*counts, *figures, f"{row['f1']:.2f}", f"{row['best_f1']:.2f}")
    console.print(table)
    for kind in dict.fromkeys((row["name"].rpartition(", ")[2], bool(row["labels"])) for row in rows):
        of_kind = [row for row in rows if (row["name"].rpartition(", ")[2], bool(row["labels"])) == kind]
        inside = {name: sum(_inside(row, name) for row in of_kind) for name in ("precision", "recall")}
        error = np.mean([abs(row["precision"] - row["expected_precision"]) for row in of_kind])
        width = np.mean([np.diff(row["precision_interval"])[0] for row in of_kind])
        f1, best = (np.mean([row[name] for row in of_kind]) for name in ("f1", "best_f1"))
        console.print(
            f"{kind[0]}, {'with' if kind[1] else 'without'} labels, {len(of_kind)} corpora: found precision inside its "
            f"interval {inside['precision']}, recall {inside['recall']}; precision off by {error:.2f} on average, "
            f"interval {width:.2f} wide; F1 {f1:.2f}, {best:.2f} at the best threshold"
        )


def _inside(row: Mapping[str, Any], name: str) -> bool:
    low, high = row[f"{name}_interval"]
    return bool(low <= row[name] <= high)


def main(
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")],
    model: Annotated[str, typer.Option(help="A ready model.")] = "minilm",
    domains: Annotated[str, typer.Option(help="Domains to judge, with commas; all without it.")] = "",
    labels: Annotated[int, typer.Option(help="Answers in each corpus.")] = 60,
    two: Annotated[float, typer.Option(help="Share of the intents with two phrasings, in a poor corpus.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Of the poor corpora.")] = 0,
    quora: Annotated[Path | None, typer.Option(help="Folder with dev.parquet of Quora.")] = None,
) -> None:
    """Judges, prints a table and writes JSON."""
    measured_on, rows = circumstances(), list[dict[str, Any]]()
    intents = bundled_intents()
    with quiet():
        ready = qpairs.load(model)
        measured = measured_pairs().questions
        vectors = dict(zip(measured, ready.encode(measured), strict=True))
        wanted = domains.split(",") if domains else sorted({intent.partition("/")[0] for intent in intents.values()})
        for domain in wanted:
            questions = [text for text, intent in intents.items() if intent.startswith(f"{domain}/")]
            judge = without(ready, domain, vectors)
            for kind, corpus in (("rich", questions), ("poor", thinned(questions, intents, two, seed))):
                rows += rows_of(judge, f"{domain}, {kind}", corpus, intents, labels)
                json_file.write_text(json.dumps({**measured_on, "model": model, "rows": rows}, indent=1) + "\n")
        if quora:
            rows += rows_of(ready, "Quora, lower bounds", *quora_corpus(quora), 0)
    json_file.write_text(json.dumps({**measured_on, "model": model, "rows": rows}, indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    typer.run(main)
