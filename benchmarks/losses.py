"""Time and memory of the losses, beside pytorch-metric-learning and sentence-transformers.

    python benchmarks/losses.py [--n 256,1024,4096] [--losses all|a,b] [--members 2,8] [--repeats 5] [--json OUT]

A step goes from n unit embeddings of 384 dimensions and their labels to the gradient, similarity and masks included.
Libraries take turns at it in one process, which gives the time. Its memory is what a process of its own needs besides
(Linux alone); a step that would need more than `--limit` GiB is not run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import circumstances, status
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.miners import BatchHardMiner, TripletMarginMiner
from pytorch_metric_learning.reducers import MeanReducer
from rich.console import Console
from rich.table import Table
from sentence_transformers.sentence_transformer import losses as st
from sentence_transformers.sentence_transformer.losses.batch_hard_triplet import BatchHardTripletLossDistanceFunction
from sentence_transformers.sentence_transformer.losses.contrastive import SiameseDistanceMetric
from torch import Tensor, nn
from torch.nn import functional

from qpairs.objectives.functions import objective_of
from qpairs.objectives.labels import BatchLabels
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.losses.masks import masked_mean
from qpairs.objectives.similarities import euclidean

DIMENSION = 384
GOAL = 2048  # MiB that a step of qpairs should stay below
ENOUGH = 0.5  # seconds after which `--repeats` steps are enough
SIDES = {
    "qpairs": "qpairs",
    "PML": "pytorch-metric-learning",
    "ST": "sentence-transformers",
    "formula": "the formula",
}
console = Console(width=140)

Loss = Callable[[Tensor], Tensor]  # unit embeddings (n, 384) -> scalar


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        loss: a name of `LOSSES`.
        over: `pairs`: n / 2 of them, half labelled 1, or all where the batch's others are the negatives; `labels`: all
            that the labels of n questions say.
        miner: a name of `MINERS`.
    """

    loss: str
    over: str = "labels"
    miner: str = "everything"

    def __str__(self) -> str:
        mined = "" if self.miner == "everything" else f", {self.miner}"
        return f"{self.loss} over {self.over}{mined}"


class Given(nn.Module):
    """The model of sentence-transformers' losses, for embeddings that are there already."""

    device = torch.device("cpu")

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features as they are, `sentence_embedding` (n, d) among them."""
        return features


class Formula(nn.Module):
    """The contrastive loss as its formula reads, with the gradient of autograd: what the one of qpairs saves."""

    def forward(self, embeddings: Tensor, classes: Tensor) -> Tensor:
        """Over all pairs of embeddings (n, d) of classes (n,)."""
        sim = euclidean(embeddings, embeddings)
        same = classes[:, None] == classes
        known = ~torch.eye(len(classes), dtype=torch.bool)
        return masked_mean(torch.where(same, sim, (1 + sim).relu()).square(), known) / 2


GIVEN = Given()
EUCLIDEAN, SQUARED = (LpDistance(normalize_embeddings=False, p=2, power=power) for power in (1, 2))
COSINE_DISTANCE = BatchHardTripletLossDistanceFunction.cosine_distance


def squared_distance(embeddings: Tensor) -> Tensor:
    """(n, n) squared Euclidean distances of embeddings (n, d), by sentence-transformers."""
    return BatchHardTripletLossDistanceFunction.euclidean_distance(embeddings, squared=True)


# The same losses elsewhere, by the number of classes
PEERS: dict[Case, dict[str, Callable[[int], nn.Module]]] = {
    Case("contrastive", "pairs"): {
        "ST": lambda _: st.ContrastiveLoss(GIVEN, distance_metric=SiameseDistanceMetric.EUCLIDEAN, margin=1.0)
    },
    Case("contrastive"): {"PML": lambda _: pml.ContrastiveLoss(distance=EUCLIDEAN), "formula": lambda _: Formula()},
    Case("online_contrastive", "pairs"): {"ST": lambda _: st.OnlineContrastiveLoss(GIVEN)},
    Case("pair_softmax", "pairs"): {
        "ST": lambda _: st.SoftmaxLoss(GIVEN, DIMENSION, num_labels=2, concatenation_sent_multiplication=True)
    },
    Case("cosent", "pairs"): {"ST": lambda _: st.CoSENTLoss(GIVEN)},
    Case("triplet"): {
        "PML": lambda _: pml.TripletMarginLoss(0.2, distance=SQUARED, reducer=MeanReducer()),
        "ST": lambda _: st.BatchAllTripletLoss(GIVEN, squared_distance, margin=0.2),
    },
    Case("triplet_euclidean"): {
        "PML": lambda _: pml.TripletMarginLoss(0.2, distance=EUCLIDEAN, reducer=MeanReducer()),
        "ST": lambda _: st.BatchAllTripletLoss(GIVEN, margin=0.2),
    },
    Case("triplet_euclidean", miner="batch_hard"): {
        "PML": lambda _: pml.TripletMarginLoss(0.2, distance=EUCLIDEAN, reducer=MeanReducer()),
        "ST": lambda _: st.BatchHardTripletLoss(GIVEN, margin=0.2),
    },
    Case("triplet_euclidean", miner="semi_hard"): {
        "PML": lambda _: pml.TripletMarginLoss(0.2, distance=EUCLIDEAN, reducer=MeanReducer())
    },
    Case("triplet_cosine"): {
        "PML": lambda _: pml.TripletMarginLoss(0.2, distance=CosineSimilarity(), reducer=MeanReducer()),
        "ST": lambda _: st.BatchAllTripletLoss(GIVEN, COSINE_DISTANCE, margin=0.2),
    },
    Case("info_nce"): {"PML": lambda _: pml.NTXentLoss(temperature=0.05)},
    Case("info_nce", "pairs"): {"ST": lambda _: st.MultipleNegativesRankingLoss(GIVEN)},
    Case("n_pair", "pairs"): {"PML": lambda _: pml.NPairsLoss()},
    Case("supervised_contrastive"): {"PML": lambda _: pml.SupConLoss()},
    Case("multi_similarity"): {"PML": lambda _: pml.MultiSimilarityLoss()},
    Case("circle"): {"PML": lambda _: pml.CircleLoss()},
    Case("lifted"): {"PML": lambda _: pml.LiftedStructureLoss(distance=EUCLIDEAN, reducer=MeanReducer())},
    Case("lifted_generalized"): {
        "PML": lambda _: pml.GeneralizedLiftedStructureLoss(distance=EUCLIDEAN, reducer=MeanReducer())
    },
    Case("softmax"): {"PML": lambda classes: pml.NormalizedSoftmaxLoss(classes, DIMENSION)},
    Case("sphereface"): {"PML": lambda classes: pml.SphereFaceLoss(classes, DIMENSION, scale=30)},
    Case("cosface"): {"PML": lambda classes: pml.CosFaceLoss(classes, DIMENSION)},
    Case("arcface"): {"PML": lambda classes: pml.ArcFaceLoss(classes, DIMENSION)},
}
MINERS_OF_PML: dict[str, Callable[[], nn.Module]] = {
    "batch_hard": lambda: BatchHardMiner(distance=EUCLIDEAN),
    "semi_hard": lambda: TripletMarginMiner(0.2, "semihard", distance=EUCLIDEAN),
}


def cases_of(loss: str) -> list[Case]:
    """What is measured of a loss."""
    entry = LOSSES[loss]
    over = "pairs" if entry.by_pair and not entry.prototypes else "labels"
    return [case for case in PEERS if case.loss == loss] or [Case(loss, over)]


# A step


def questions(n: int, members: int) -> tuple[Tensor, Tensor]:
    """Embeddings (n, 384) and classes (n,) of n questions, of which those n / members apart are of one class."""
    random = torch.Generator().manual_seed(0)
    classes = torch.arange(n) % (n // members)
    centres = torch.randn(n // members, DIMENSION, generator=random)
    embeddings = centres[classes] + 3 * torch.randn(n, DIMENSION, generator=random)  # near as some, far as others are
    return functional.normalize(embeddings, dim=1).requires_grad_(), classes


def pair_labels(case: Case, n: int) -> Tensor:
    """(n / 2,) labels of the pairs."""
    return torch.ones(n // 2).long() if LOSSES[case.loss].in_batch else torch.arange(n // 2) % 2


def labels_of_pairs(labels: Tensor) -> BatchLabels:
    """The labels (k,) of pairs as masks over their first questions x their second ones."""
    duplicates, index = torch.diag(labels == 1), torch.arange(len(labels))
    return BatchLabels(duplicates, torch.diag(labels == 0), ~duplicates, index[:, None].expand(-1, 2))


def labels_of_classes(classes: Tensor) -> BatchLabels:
    """The classes (n,) of questions as masks over n x n of them."""
    same = classes[:, None] == classes
    others = ~same
    return BatchLabels(same.fill_diagonal_(False), others, others)


def ours(case: Case, n: int, classes: Tensor) -> Loss:
    """A loss of qpairs as training calls it."""
    objective = objective_of(case.loss, case.miner)
    learned = objective.learned_modules(int(classes.max()) + 1, DIMENSION)
    if case.over == "pairs":
        labels = labels_of_pairs(pair_labels(case, n))  # in training it comes with the batch, as the labels do
        return lambda embeddings: objective(*embeddings.chunk(2), labels, learned=learned)
    if LOSSES[case.loss].prototypes:
        empty = labels_of_classes(classes[:0])
        return lambda embeddings: objective(embeddings, embeddings, empty, (embeddings, classes), learned)
    return lambda embeddings: objective(embeddings, embeddings, labels_of_classes(classes), learned=learned)


def descend(weight: Tensor) -> None:
    """A step of gradient descent, as `Prototypes` take one in backward."""
    assert weight.grad is not None
    with torch.no_grad():
        weight.sub_(weight.grad, alpha=0.01)
    weight.grad = None


def theirs(case: Case, side: str, n: int, classes: Tensor) -> Loss:
    """The same loss of a peer."""
    loss = PEERS[case][side](int(classes.max()) + 1)
    if LOSSES[case.loss].prototypes:
        for weight in loss.parameters():
            weight.register_post_accumulate_grad_hook(descend)
    if side == "ST":
        if case.over == "labels":
            return lambda embeddings: loss([{"sentence_embedding": embeddings}], classes)
        labels = pair_labels(case, n)
        return lambda embeddings: loss([{"sentence_embedding": part} for part in embeddings.chunk(2)], labels)
    if case.over == "pairs":
        pairs = torch.arange(n // 2).repeat(2)
        return lambda embeddings: loss(embeddings, pairs)
    if case.miner in MINERS_OF_PML:
        mine = MINERS_OF_PML[case.miner]()
        return lambda embeddings: loss(embeddings, classes, mine(embeddings, classes))
    return lambda embeddings: loss(embeddings, classes)


def loss_of(case: Case, side: str, n: int, classes: Tensor) -> Loss:
    """The loss of a case, of one of the `SIDES`."""
    return ours(case, n, classes) if side == "qpairs" else theirs(case, side, n, classes)


def step(loss: Loss, embeddings: Tensor) -> None:
    """Forward and backward, down to the gradient of the embeddings."""
    embeddings.grad = None
    loss(embeddings).backward()


# Measures


def peak_memory(case: Case, side: str, n: int, members: int, limit: float) -> float | None:
    """MiB that a step takes at most besides what stood before it, in a fresh process; None above a limit in GiB."""
    embeddings, classes = questions(n, members)
    loss = loss_of(case, side, n, classes)
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + int(limit * 2**30), resource.RLIM_INFINITY))
    before = status("VmRSS")
    try:
        step(loss, embeddings)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return None
    return (status("VmHWM") - before) / 2**20


def times(losses: dict[str, Loss], embeddings: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of a step of each, taking turns."""
    taken: dict[str, list[float]] = {side: [] for side in losses}
    for loss in losses.values():
        step(loss, embeddings)
    end = time.perf_counter() + ENOUGH
    while min(map(len, taken.values())) < repeats or time.perf_counter() < end:
        for side, loss in losses.items():
            start = time.perf_counter()
            step(loss, embeddings)
            taken[side].append(time.perf_counter() - start)
    return {side: statistics.median(seconds) for side, seconds in taken.items()}


def measure(case: Case, n: int, members: int, repeats: int, limit: float) -> dict[str, Any]:
    """A line of the results; sides that need too much memory have no time."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["qpairs.objectives.objective", "pytorch_metric_learning.losses", st.__name__])
    peaks = {}
    for side in ("qpairs", *PEERS.get(case, ())):
        with fresh.Pool(1) as pool:
            peaks[side] = pool.apply(peak_memory, (case, side, n, members, limit))
    embeddings, classes = questions(n, members)
    losses = {side: loss_of(case, side, n, classes) for side, peak in peaks.items() if peak is not None}
    seconds = times(losses, embeddings, repeats)
    own, others = seconds.get("qpairs"), [taken for side, taken in seconds.items() if side != "qpairs"]
    return {
        **dataclasses.asdict(case),
        "name": str(case),
        "n": n,
        "members": members,
        "ms": {side: 1000 * taken for side, taken in seconds.items()},
        "ratio": own / min(others) if own and others else None,
        "mib": peaks,
    }


# What is told


def place(row: dict[str, Any]) -> str:
    """What a line is of, in words."""
    return f"{row['name']} at n = {row['n']}, members = {row['members']}"


def cell(row: dict[str, Any], unit: str, side: str, limit: float) -> str:
    """A cell of the table."""
    if side not in row["mib"]:
        return ""
    value = row[unit].get(side)
    return f"> {limit:g} GiB" if value is None else f"{value:.{1 if unit == 'ms' else 0}f}"


def show(rows: list[dict[str, Any]], limit: float) -> None:
    """Prints the results, and the lines where qpairs does not do as it should."""
    peers = "; ".join(f"{side}: {name}" for side, name in SIDES.items() if side != name)
    table = Table(title=f"Forward and backward, n x {DIMENSION}", caption=peers, box=None, pad_edge=False)
    table.add_column("loss")
    for column in ("n", "members", *(f"{side} {unit}" for unit in ("ms", "MiB") for side in SIDES), "time to fastest"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [cell(row, unit, side, limit) for unit in ("ms", "mib") for side in SIDES]
        table.add_row(row["name"], str(row["n"]), str(row["members"]), *cells, row["ratio"] and f"{row['ratio']:.2f}")
    console.print(table)
    told = {
        "slower than a peer": [f"{place(row)} ({row['ratio']:.2f})" for row in rows if (row["ratio"] or 0) > 1],
        "qpairs above 2 GiB": [place(row) for row in rows if (row["mib"]["qpairs"] or math.inf) > GOAL],
        f"not run, needs more than {limit:g} GiB": [
            f"{SIDES[side]}, {place(row)}" for row in rows for side, peak in row["mib"].items() if peak is None
        ],
    }
    for what, places in told.items():
        console.print(f"{what}: {'; '.join(places) or 'none'}", highlight=False)


def main(
    n: Annotated[str, typer.Option(help="Numbers of questions, with commas.")] = "256,1024,4096",
    losses: Annotated[str, typer.Option(help="Which losses, with commas; all for all.")] = "all",
    members: Annotated[str, typer.Option(help="Questions of a class, with commas.")] = "2,8",
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the results go.")] = None,
    repeats: Annotated[int, typer.Option(help="Steps at least that a median is taken of.")] = 5,
    limit: Annotated[float, typer.Option(help="GiB that a step may take.")] = 6.0,
) -> None:
    """Measures, prints a table and writes JSON."""
    measured_on, rows = circumstances(), []
    for size in map(int, n.split(",")):
        for loss in LOSSES if losses == "all" else losses.split(","):
            for case in cases_of(loss):
                for group in map(int, members.split(",")) if case.over == "labels" else [2]:
                    rows.append(measure(case, size, group, repeats, limit))
                    console.log(f"{place(rows[-1])}: {', '.join(f'{s} {t:.1f} ms' for s, t in rows[-1]['ms'].items())}")
                    if json_file:
                        json_file.write_text(json.dumps({**measured_on, "rows": rows}, indent=1) + "\n")
    show(rows, limit)


if __name__ == "__main__":
    typer.run(main)
