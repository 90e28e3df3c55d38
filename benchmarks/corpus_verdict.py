"""Is a verdict true in a corpus? What it expects and promises beside what is found, where all duplicates are known.

    python benchmarks/corpus_verdict.py --json OUT [--models FOLDER] [--domains travel,health] [--quora FOLDER]

The bundled questions have complete answers: two questions of one intent are duplicates. Corpora, each judged by a model
that did not train on it: the questions of the test part; the same by an ONNX export of the model; resampled ones of 120
to 480 of them and, among others that it trained on, of 500 to 4,000; and each domain of --domains, by a model that
trained on the others, without labels and with --labels of them, drawn by the labelling view and answered by the gold.
With --quora, the questions of half of dev.parquet, by a model that trained on the first --pairs of train.parquet and
chose its thresholds on the other half; labels are not complete there, so what is found is a lower bound.

Models are trained with the default options, and kept in --models.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas
import typer
from corpus_training import Gold, read_gold, without
from machine import circumstances
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import logit

import qpairs
from qpairs import metrics
from qpairs.commands.terminal import quiet
from qpairs.config import Config
from qpairs.data.identity import canonical, pair_key
from qpairs.data.labels import LabelledPairs
from qpairs.data.parts import load_parts
from qpairs.data.splits import duplicate_components, split_pairs
from qpairs.evaluation.calibrate_corpus import calibrate_corpus
from qpairs.models.base import Model
from qpairs.models.verdict import CorpusSetting, Setting
from qpairs.retrieval.clusters import clusters
from qpairs.retrieval.matches import find_matches
from qpairs.serving.label_strata import Frame, draw_pairs

ASKED = (0.3, 0.5, 0.7, 0.8)
DOMAINS = "accounts,banking,computing,education,health,household,housing,programming,shopping,telecom"
SIZES = (120, 200, 300, 400, 480, 500, 1000, 2000, 3000, 4000)
console = Console(width=160)


@dataclass(frozen=True)
class Corpus:
    """Questions, their vectors, and which are duplicates.

    Attributes:
        vectors: (n, d) unit vectors.
        cluster: (n,) equal for duplicates.
    """

    vectors: NDArray[np.float32]
    cluster: NDArray[np.int64]

    def pairs(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Scores of all pairs, and whether they are duplicates."""
        left, right = np.triu_indices(len(self.vectors), 1)
        return (self.vectors @ self.vectors.T)[left, right].clip(max=1), self.cluster[left] == self.cluster[right]


def corpus_of(model: Model, questions: Sequence[str], cluster: Sequence[Any]) -> Corpus:
    """A corpus as a model sees it."""
    return Corpus(model.encode(questions), np.unique(np.asarray(cluster), return_inverse=True)[1])


def judged(setting: Setting, corpus: Corpus) -> dict[str, Any]:
    """What a setting expects of a corpus, beside what is found."""
    scores, same = corpus.pairs()
    found = metrics.confusion(scores, same, setting.threshold)
    matches = find_matches(corpus.vectors, setting.threshold)
    kept = int((clusters(len(corpus.vectors), matches) == np.arange(len(corpus.vectors))).sum())
    row: dict[str, Any] = {
        "questions": len(corpus.vectors),
        "pairs": found.tp + found.fp,
        "kept": kept,
        "stated": float(setting.probability(matches.similarity).mean()) if len(matches) else None,
        "found": found.precision,
        "recall": found.recall,
        "f1": found.f1,
        "best_f1": metrics.confusion(scores, same, metrics.best_threshold(scores, same)).f1,
    }
    if isinstance(setting, CorpusSetting):
        expected = setting.expected()
        row |= {"expected": expected.precision, "interval": expected.precision_interval}
        row |= {"expected_recall": expected.recall, "asked": asked(setting, scores, same)}
        row["hit_error"] = hit_error(setting, corpus)
    return row


def asked(setting: CorpusSetting, scores: NDArray[np.float32], same: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """For each precision of `ASKED`: what is found where it is expected, and where it is promised; None: nowhere."""
    rows = []
    curves = setting.estimate.curves
    some = curves.pairs >= 20
    for precision in ASKED:
        row: dict[str, Any] = {"precision": precision}
        reached = np.flatnonzero(some & (curves.precision[0] >= precision))
        for name, threshold in (
            ("where_expected", float(curves.thresholds[reached[0]]) if len(reached) else None),
            ("where_promised", setting.estimate.threshold_at(precision)),
        ):
            row[name] = None if threshold is None else metrics.confusion(scores, same, threshold).precision
        rows.append(row)
    return rows


def hit_error(setting: CorpusSetting, corpus: Corpus) -> float:
    """Expected calibration error of the 10 nearest others of each question."""
    scores = corpus.vectors @ corpus.vectors.T
    np.fill_diagonal(scores, -1)
    nearest = np.argsort(-scores, axis=1)[:, :10]
    same = corpus.cluster[nearest] == corpus.cluster[:, None]
    shown = setting.for_hits().probability(np.take_along_axis(scores, nearest, axis=1))
    return metrics.expected_calibration_error(shown.ravel(), same.ravel())


def labels_of(questions: Sequence[str], corpus: Corpus, n: int) -> LabelledPairs:
    """The first n pairs of the labelling view's stratified choice, answered by the gold."""
    keys = [canonical(text) for text in questions]
    row = {key: i for i, key in enumerate(keys)}
    left, right = np.triu_indices(len(keys), 1)
    scores, _ = corpus.pairs()
    top = np.argsort(-scores)[: 40 * len(keys)]
    high = {pair_key((keys[left[i]], keys[right[i]])): float(scores[i]) for i in top}
    drawn = dict(itertools.islice(draw_pairs(high, Frame(sorted(keys), [])).items(), n))
    ends = [(row[one], row[other]) for one, other in drawn]
    return LabelledPairs(
        tuple(questions[one] for one, _ in ends),
        tuple(questions[other] for _, other in ends),
        np.array([corpus.cluster[one] == corpus.cluster[other] for one, other in ends], dtype=np.int8),
        ("stratified",) * len(ends),
        np.array(list(drawn.values())),
    )


def trained(folder: Path, **options: Any) -> Model:
    """The model in a folder, trained with the default options and these if it is not there."""
    return qpairs.load(folder) if folder.exists() else qpairs.train(output=str(folder), **options)


def bundled(models: Path, gold: Gold, encoder: str) -> Iterator[dict[str, Any]]:
    """The test part, by the model and by its export; and resampled corpora."""
    parts = load_parts(Config())
    assert parts.test is not None
    model = trained(models / "default", encoder=encoder)
    questions = list(parts.test.questions)
    test = corpus_of(model, questions, [gold.intent[text] for text in questions])
    yield {"name": "test, by the setting for pairs", **judged(model.verdict.pair, test)}
    yield {"name": "test", **judged(model.verdict.corpus(metrics.count_scores(test.vectors)), test)}
    if not (models / "export").exists():
        form = "static" if encoder == "static" else "onnx"
        qpairs.export_checkpoint(model.path, models / "export", format=form)
    export = qpairs.load(models / "export")
    seen = corpus_of(export, questions, [gold.intent[text] for text in questions])
    yield {"name": "test, by an export", **judged(export.verdict.corpus(metrics.count_scores(seen.vectors)), seen)}
    rng = np.random.default_rng(0)
    everything = corpus_of(model, list(gold.intent), list(gold.intent.values()))
    for size in SIZES:
        source = test if size < len(questions) else everything
        order = rng.permutation(int(source.cluster.max()) + 1)[source.cluster]  # whole intents, in random order
        rows = np.argsort(order, kind="stable")[:size]
        corpus = Corpus(source.vectors[rows], source.cluster[rows])
        name = "resampled" if source is test else "resampled, partly trained on"
        yield {"name": name, **judged(model.verdict.corpus(metrics.count_scores(corpus.vectors)), corpus)}


def left_out(models: Path, gold: Gold, encoder: str, domain: str, labels: int) -> Iterator[dict[str, Any]]:
    """A domain that the model did not train on, without labels and with some."""
    parts = without(load_parts(Config()), gold, [domain])
    model = trained(models / f"no_{domain}", encoder=encoder, parts=parts)
    questions = [text for text, name in gold.domain.items() if name == domain]
    corpus = corpus_of(model, questions, [gold.intent[text] for text in questions])
    yield {"name": domain, "labels": 0, **judged(model.verdict.corpus(metrics.count_scores(corpus.vectors)), corpus)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "questions.csv")
        pandas.DataFrame({"question": questions}).to_csv(file, index=False)
        fit = calibrate_corpus(model, file, labels_of(questions, corpus, labels))
    yield {"name": domain, "labels": labels, **judged(fit.setting, corpus)}


def quora(models: Path, data: Path, encoder: str, pairs: int) -> Iterator[dict[str, Any]]:
    """Half of Quora's dev part, by a model of some training pairs that chose its thresholds on the other half."""
    dev = split_pairs(qpairs.load_pairs(data / "dev.parquet"), validation_fraction=0.5, test_fraction=0.0)
    models.mkdir(parents=True, exist_ok=True)
    parts = {"train": pandas.read_parquet(data / "train.parquet").head(pairs)}
    with tempfile.TemporaryDirectory() as folder:
        table = [(*dev.validation.texts(i), int(dev.validation.labels[i])) for i in range(len(dev.validation))]
        parts["validation"] = pandas.DataFrame(table, columns=["question1", "question2", "is_duplicate"])
        for name, frame in parts.items():
            frame.to_parquet(Path(folder, f"{name}.parquet"))
        files = {"data": f"{folder}/train.parquet", "validation": f"{folder}/validation.parquet"}
        model = trained(models / "quora", encoder=encoder, **files)
    judge = dev.train
    corpus = corpus_of(model, list(judge.questions), duplicate_components(judge).tolist())
    yield {"name": "Quora, lower bounds", **judged(model.verdict.corpus(metrics.count_scores(corpus.vectors)), corpus)}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints a line for each corpus."""
    table = Table(title="Expected beside found, in corpora", title_justify="left", box=None, pad_edge=False)
    for column in ("", "labels", "questions", "pairs", "kept", "stated", "expected (95 %)", "found", "F1", "best F1"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("hits' error", justify="right")
    table.add_column("found where 0.3, 0.5, 0.7, 0.8 is expected | promised", justify="left")
    for row in rows:
        low, high = row.get("interval", (0, 0))
        names = ("where_expected", "where_promised")
        cells = [" ".join(_figure(each[name]) for each in row.get("asked", [])) for name in names]
        table.add_row(
            row["name"],
            str(row.get("labels", "")),
            *(f"{row[name]:,}" for name in ("questions", "pairs", "kept")),
            _figure(row["stated"]),
            f"{row['expected']:.2f} ({low:.2f} to {high:.2f})" if "expected" in row else "",
            *(_figure(row.get(name)) for name in ("found", "f1", "best_f1", "hit_error")),
            " | ".join(cells),
        )
    console.print(table)
    inside = [row["interval"][0] <= row["found"] <= row["interval"][1] for row in rows if "interval" in row]
    promises = [
        (each["where_promised"], each["precision"])
        for row in rows
        if "lower bounds" not in row["name"]
        for each in row.get("asked", [])
        if each["where_promised"] is not None
    ]
    kept = sum(found >= precision for found, precision in promises)
    console.print(
        f"found precision inside its interval: {sum(inside)} of {len(inside)}; promises kept: {kept} of {len(promises)}"
    )
    for labels in sorted({row["labels"] for row in rows if "labels" in row}):
        domains = [row for row in rows if row.get("labels") == labels]
        found, expected = (logit([row[name] for row in domains]) for name in ("found", "expected"))
        width = np.mean([row["interval"][1] - row["interval"][0] for row in domains])
        error = np.mean([abs(row["found"] - row["expected"]) for row in domains])
        console.print(
            f"domains left out, {labels} labels: interval {width:.2f} wide, mean error {error:.2f}, log odds off by "
            f"{np.sqrt(np.mean((found - expected) ** 2)):.2f} (root mean square)"
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main(
    json_file: Annotated[Path, typer.Option("--json", help="Where the results go.")],
    models: Annotated[Path, typer.Option(help="Folder of the models; those missing are trained.")] = Path("models"),
    encoder: Annotated[str, typer.Option(help="As of qpairs train.")] = "minilm",
    domains: Annotated[str, typer.Option(help="Domains to leave out in turn, with commas; none for none.")] = DOMAINS,
    labels: Annotated[int, typer.Option(help="Stratified labels of each domain.")] = 100,
    quora_folder: Annotated[
        Path | None, typer.Option("--quora", help="Folder with train.parquet and dev.parquet.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Quora pairs to train on.")] = 16_000,
) -> None:
    """Judges, prints a table and writes JSON."""
    measured_on, gold = circumstances(), read_gold()
    rows: list[dict[str, Any]] = []
    with quiet():
        runs = [bundled(models, gold, encoder)]
        runs += [left_out(models, gold, encoder, domain, labels) for domain in domains.split(",") if domain != "none"]
        runs += [quora(models, quora_folder, encoder, pairs)] if quora_folder else []
        for row in itertools.chain.from_iterable(runs):
            rows.append(row)
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(
                json.dumps({**measured_on, "encoder": encoder, "labels": labels, "rows": rows}, indent=1) + "\n"
            )
    show(rows)


if __name__ == "__main__":
    typer.run(main)
