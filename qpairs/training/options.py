"""The options of a training run as types, so that editors complete them and type checkers know them.

`Config` defines them, with defaults, help and ranges; a test checks that names and order are the same here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from qpairs.config import OPTIONS, TYPES
from qpairs.data.sources import PairSource
from qpairs.objectives.expressions import Function

F = TypeVar("F", bound=Callable[..., Any])


class CellOptions(TypedDict, total=False):
    """The options that all runs of a comparison may share: see `Config`.

    >>> options: CellOptions = {"encoder": "static", "batch_size": 32}
    """

    data: PairSource
    validation: PairSource
    test: PairSource
    columns: str | Sequence[str]
    labels: str | Sequence[str] | Mapping[str, int]
    label_cut: float | None
    label_range: str | Sequence[float]
    negative: str
    positives: bool
    skip_bad_rows: bool
    validation_fraction: float
    test_fraction: float
    drop_suspects: PairSource
    augment: float
    model: str
    encoder: str
    vectors: str
    share_vectors: bool
    symmetric: bool
    max_length: int
    prompt: str
    project: int
    lora: int
    dropout: float
    word_dropout: float
    loss: str | Function
    miner: str | Function
    score: str
    dims: int | Sequence[int]
    teacher: str | Sequence[str]
    distill: str
    distill_weight: float
    teacher_epochs: float
    second_epochs: float
    neighbours: int
    reranker: str
    reranker_epochs: float | None
    learning_rate: float | None
    weight_decay: float
    warmup: float
    clip: float
    evaluations: float
    batch_size: int
    sampler: str
    group_size: int
    mined: int
    relative_margin: float
    queue: int
    gradient_cache: int
    precision: str
    seed: int
    imports: str | Sequence[str]
    unlabelled: bool
    text_column: str
    report_to: str


class TrainOptions(CellOptions, total=False):
    """The options of a run: see `Config`.

    >>> options: TrainOptions = {"encoder": "static", "epochs": 2}
    """

    output: str
    budget_minutes: float
    epochs: float
    patience: int


def shows_options(function: F) -> F:
    """The function with every option of a run in its signature, in place of **options.

    >>> @shows_options
    ... def run(*, resume: bool = False, **options: Any) -> None: ...
    >>> list(inspect.signature(run).parameters)[:3]
    ['resume', 'data', 'validation']
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind != p.VAR_KEYWORD]
    named = {p.name for p in own}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=spec.default, annotation=TYPES[name])
        for name, spec in OPTIONS.items()
        if name not in named
    ]
    function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    return function
