"""The cells of an experiment: a cell is one training run, of an encoder, loss, miner and seed, and what it measured."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.memory import peak_memory
from qpairs.core.progress import OnProgress, Progress
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts
from qpairs.data.splits import question_components
from qpairs.encoders.build import takes_lora, takes_prompt, takes_vectors, tower_names
from qpairs.evaluation.calibrate import cross_fitted
from qpairs.experiments.custom import Rows, add_rows
from qpairs.objectives.expressions import FUNCTION, Function
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.objective import parse_objective
from qpairs.training.fit import train

SAMPLERS = {"offline": "triplets", "groups": "groups"}  # accepted as miners: a sampler, too, selects the negatives
WITH_SOFTMAX = "softmax + 0.003*{}"  # for a loss without negatives; the weight is that of Wen et al. 2016
WITH_PAIRS = "online_contrastive + 0.6*{}"  # for a loss without duplicates; the default of `Config.loss`
CELLS = "cells"

Interval = tuple[float, float]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Cell:
    """A training run of a comparison, or with a number of training pairs, of a learning curve.

    >>> Cell("minilm", "softmax", "offline", 0).name
    'minilm-softmax-offline-0-bb5f041d'
    """

    encoder: str
    loss: str
    miner: str
    seed: int
    pairs: int | None = None  # None: all training pairs

    @property
    def name(self) -> str:
        """The stem of its files: readable, and unique through a hash."""
        parts = [str(value) for value in dataclasses.astuple(self) if value is not None]
        readable = re.sub(r"[^\w.]+", "-", "-".join(parts))[:100]
        return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"

    @property
    def title(self) -> str:
        """The cell in words."""
        size = "" if self.pairs is None else f"{self.pairs:,} pairs, "
        return f"{size}{self.encoder}, {self.loss}, {self.miner}, seed {self.seed}"

    def functions(self, known: Mapping[str, Function]) -> dict[str, Function]:
        """Its loss and its miner, by option, where they are functions; `known` has functions by name."""
        named = {"loss": self.loss, "miner": self.miner}
        return {what: known[name] for what, name in named.items() if name in known}

    def config(self, base: Config, folder: Path) -> Config:
        """The options of the run: the base with the encoder, loss, miner and seed of the cell.

        Word vectors, prompts and adapters apply only to encoders that take them, and `score=head` only to losses that
        have a head.
        """
        takes = any(map(takes_vectors, tower_names(self.encoder)))
        return dataclasses.replace(
            base,
            encoder=self.encoder,
            vectors=base.vectors if takes else "",
            prompt=base.prompt if takes_prompt(self.encoder) else "",
            lora=base.lora if takes_lora(self.encoder) else 0,
            loss=self.loss,
            score=base.score if has_head(self.loss) else "cosine",
            miner="everything" if self.miner in SAMPLERS else self.miner,
            sampler=SAMPLERS.get(self.miner, base.sampler),
            seed=self.seed,
            output=str(folder / CELLS / self.name),
        )


@dataclass(frozen=True)
class Result:
    """What a cell measured.

    Attributes:
        f1: on the evaluated pairs; cross-fitted if they are the validation pairs.
        f1_interval: 95 % by bootstrap over components.
        threshold: chosen on all of validation.
        seconds: of training and its evaluations, without loading and the final evaluation.
        steps, epochs: of training.
        peak_bytes: greatest resident memory of the process (not of a GPU).
        report: on the evaluated pairs, as in `evaluation.Report.to_dict`.
    """

    f1: float
    f1_interval: Interval
    threshold: float
    seconds: float
    steps: int
    epochs: float
    peak_bytes: int
    report: Mapping[str, Any]

    @property
    def average_precision(self) -> float:
        """Average precision on the evaluated pairs."""
        return float(self.report["average_precision"])

    @property
    def average_precision_interval(self) -> Interval:
        """95 % by bootstrap over components."""
        low, high = self.report["average_precision_interval"]
        return low, high

    @property
    def mining_average_precision(self) -> float:
        """Average precision over all pairs of the evaluated question table; NaN if it was not measured."""
        return float(self.report["retrieval"].get("mining_average_precision", math.nan))


@dataclass(frozen=True)
class Record:
    """A cell and its result, or the reason why there is none."""

    cell: Cell
    result: Result | None
    error: str = ""


def cells_of(encoders: Sequence[str], losses: Sequence[str], miners: Sequence[str], seeds: range) -> list[Cell]:
    """A cell for each combination."""
    return [Cell(*choice) for choice in itertools.product(encoders, losses, miners, seeds)]


def parse_list(what: str, listed: Any) -> list[str]:
    """The distinct items of a list, separated by the commas outside parentheses.

    Args:
        what: the option, for the message.
        listed: a text, or several.

    Raises:
        UserError: an item is empty, or no text.

    >>> parse_list("losses", "info_nce(temperature=0.1),cosent")
    ['info_nce(temperature=0.1)', 'cosent']
    """
    texts = [listed] if isinstance(listed, str) else list(listed)
    if strange := [item for item in texts if not isinstance(item, str)]:
        raise UserError(f"compare: {what}: {strange[0]!r} is neither a text nor a function")
    found = [item.strip() for text in texts for item in re.split(r",(?![^()]*\))", text)]
    if not all(found) or not found:
        raise UserError(f"compare: {what}: an item of {', '.join(texts)!r} is empty")
    return list(dict.fromkeys(found))


def expand_losses(expressions: Sequence[str]) -> list[str]:
    """The expressions, with `all` replaced by every loss; one that cannot be trained alone is added to another.

    A loss without negatives is added to softmax, one without duplicates to online_contrastive.

    >>> expand_losses(["cosent", "center"])
    ['cosent', 'softmax + 0.003*center']
    """
    named = [name for loss in expressions for name in (LOSSES if loss == "all" else [loss])]
    return list(dict.fromkeys(added(name) or name for name in named))


def added(name: str) -> str:
    """The sum that stands for a loss of the table which cannot be trained alone; '' for everything else."""
    entry = LOSSES.get(name)
    if entry is None or not (entry.positives_only or entry.only_unlabelled):
        return ""
    return (WITH_SOFTMAX if entry.positives_only else WITH_PAIRS).format(name)


def has_head(loss: str) -> bool:
    """Whether a loss, an expression or the name of a function, trains a classifier of pairs."""
    return not loss.startswith(FUNCTION) and parse_objective(loss).has_head


def judged_pairs(parts: Parts) -> tuple[str, Pairs]:
    """The part that F1 is measured on, and its name: test, or validation where there is no test part."""
    return ("validation", parts.validation) if parts.test is None else ("test", parts.test)


def components_of(pairs: Pairs) -> NDArray[np.int64]:
    """(n_pairs,) component of each pair."""
    return question_components(pairs)[pairs.left]


def train_cell(
    config: Config, parts: Parts, functions: Mapping[str, Function], rows: Rows, on_progress: OnProgress
) -> tuple[Result, Arrays]:
    """Trains and evaluates.

    Args:
        config: the options of the run.
        parts: the pairs.
        functions: its loss and its miner, where they are functions.
        rows: the user's own, from the process that compares.
        on_progress: called at every step.

    Returns:
        The result; verdict (n,) bool, score (n,) float32, label (n,) int8 and component (n,) int64 of the evaluated
        pairs.
    """
    first = last = 0.0
    latest = Progress("training")

    def observe(now: Progress) -> None:
        nonlocal first, last, latest
        if not now.stage.startswith("evaluating"):
            last, latest = time.monotonic(), now
            first = first or last
        on_progress(now)

    add_rows(rows)
    options: dict[str, Any] = dict(functions)
    model = train(config, parts=parts, on_progress=observe, **options)
    part, pairs = judged_pairs(parts)
    components = components_of(pairs)
    scores, _ = model.score_pairs(pairs)
    verdict = model.verdict.pair.decide(scores) if part == "test" else cross_fitted(scores, pairs.labels, components)
    result = Result(
        f1=metrics.confusion(verdict, pairs.labels, 0.5).f1,
        f1_interval=metrics.bootstrap_interval(verdict, pairs.labels, components, 0.5)["f1"],
        threshold=model.verdict.pair.threshold,
        seconds=last - first,
        steps=latest.done,
        epochs=latest.metrics.get("epoch", 0.0),
        peak_bytes=peak_memory(),
        report=model.scores[part],
    )
    return result, {"verdict": verdict, "score": scores, "label": pairs.labels, "component": components}
