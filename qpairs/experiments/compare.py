"""Compares encoders, losses and miners on the same pairs, split and seeds, each trained for the same wall-clock time.

A cell of the comparison is one training run, in its own process. Its result stays in OUTPUT/cells, so that an
interrupted comparison continues with the cells that are missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from qpairs.config import Config, config_from
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.parts import Parts, load_parts, separate_pairs
from qpairs.encoders.build import build_encoder
from qpairs.experiments import comparison_folder as store
from qpairs.experiments.cells import CELLS, Cell, Record, cells_of, expand_losses, parse_list, train_cell
from qpairs.experiments.custom import custom_rows, digest, names_of, rows_named
from qpairs.experiments.processes import ProcessError, run_in_process
from qpairs.experiments.results import Comparison, compare_records
from qpairs.models.unfinished import partial_of
from qpairs.objectives.expressions import Function
from qpairs.objectives.plugins import register_custom
from qpairs.training.estimate import estimate_plan
from qpairs.training.fit import Plan
from qpairs.training.guides import Guides, build_objective
from qpairs.training.names import teachers_to_train
from qpairs.training.options import CellOptions, shows_options

log = logging.getLogger(__name__)

NO_LIMIT = 1e3  # epochs: the time budget ends a cell first
VOCABULARY = 1000  # questions whose words an encoder is tried with


@shows_options
def compare(
    *,
    losses: str | Function | Sequence[str | Function] = "all",
    encoders: str | Sequence[str] = "",
    miners: str | Function | Sequence[str | Function] = "",
    seeds: int = 3,
    output: str = "runs/compare",
    budget_minutes: float = 5.0,
    epochs: float = NO_LIMIT,
    patience: int = 0,
    keep_checkpoints: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    **options: Unpack[CellOptions],
) -> Comparison:
    """Trains every encoder with every loss and miner, and tests which are better and by how much.

    The pairs are loaded and split once. Started again in the same folder, it trains the cells that failed or were
    interrupted, and keeps the finished ones. The user's own losses, miners, encoders and readers are sent to the
    process of every cell, wherever they are defined: in a script, a notebook or a module; a cell whose function has
    changed is trained again.

    Args:
        losses: expressions as in `Config.loss`, a list or one text with commas; `all` is every loss; functions (sim,
            Relation) -> scalar may be in the list, too. Two that
            cannot be trained alone are added to others: center to softmax, strangers to online_contrastive.
        encoders: names as in `Config.encoder`; default: the encoder of the options.
        miners: expressions as in `Config.miner`; also `offline` (negatives mined before each epoch, the sampler
            `triplets`) and `groups` (the sampler of that name); functions (sim, Relation) -> Relation; default: the
            miner of the options.
        seeds: cells of each kind, with the seeds `seed`, `seed + 1`, ...; the split is that of the first.
        output: folder of the results, its files are listed in `comparison_folder`.
        budget_minutes: training time of each cell; 0: until the epochs are done.
        epochs: passes over the pairs, at most.
        patience: as in `Config`; 0, so that all cells train equally long.
        keep_checkpoints: whether the trained models stay in OUTPUT/cells.
        overwrite: start again in a folder that holds another comparison.
        on_progress: counts finished cells; the stage names the cell, the note says how far it is or its result.
        options: further fields of `Config`, for every cell.

    Raises:
        UserError: a mistake that the user can fix, before the first cell is trained.

    >>> found = compare(data="mine.csv", losses=["contrastive", my_loss], encoders="static", seeds=2)  # doctest: +SKIP
    >>> found.rows[0].loss, found.rows[0].mean("f1")  # doctest: +SKIP
    ('contrastive', 0.71)
    """
    limits = {"budget_minutes": budget_minutes, "epochs": epochs, "patience": patience}
    asked = _asked({**options, **limits}, losses, encoders, miners, seeds)
    base, parts, cells, functions, folder = asked.base, asked.parts, asked.cells, asked.functions, Path(output)
    with store.hold_folder(folder, store.manifest_of(base, parts), overwrite=overwrite), interruptible(folder):
        runs = [CellRun(cell, cell.config(base, folder), lambda: parts, cell.functions(functions)) for cell in cells]
        records = train_cells(runs, folder, keep_checkpoints, on_progress)
        comparison = compare_records(records, base, parts, functools.partial(store.read_verdict, folder))
        store.write_comparison(folder, comparison)
    return comparison


@dataclass(frozen=True)
class _Asked:
    base: Config
    parts: Parts
    cells: list[Cell]
    functions: dict[str, Function]


def _asked(options: Mapping[str, Any], losses: Any, encoders: Any, miners: Any, seeds: int) -> _Asked:
    """The plan of a comparison: all errors are found before a cell is trained."""
    values, pairs = separate_pairs(options)
    base = config_from(values, where="compare")
    if not base.budget_minutes and base.epochs >= NO_LIMIT:
        raise UserError("compare: without a budget, set --epochs for the cells")
    check_experiment(base, seeds, "compare")
    register_custom(base.imports)
    cells, functions = _cells(base, losses, encoders, miners, seeds)
    parts = load_parts(base, pairs)
    try_encoders(cells, base, parts.train.questions[:VOCABULARY])
    return _Asked(base, parts, cells, functions)


@dataclass(frozen=True)
class ComparisonPlan:
    """The time that a comparison will take.

    Attributes:
        cells: the runs.
        split: of its data, as a checkpoint holds it.
        minutes: encoder -> training time of one of its cells: the budget, or, without one, predicted from a few steps.
    """

    cells: Sequence[Cell]
    split: Mapping[str, Any]
    minutes: Mapping[str, float]

    @property
    def hours(self) -> float:
        """Training time of all cells, one after the other."""
        return sum(self.minutes[cell.encoder] for cell in self.cells) / 60


def plan_comparison(
    *,
    losses: str | Function | Sequence[str | Function] = "all",
    encoders: str | Sequence[str] = "",
    miners: str | Function | Sequence[str | Function] = "",
    seeds: int = 3,
    on_progress: OnProgress = ignore,
    **options: Any,
) -> ComparisonPlan:
    """The cells of a comparison and the time that they will take; nothing is trained or written.

    Args:
        losses: as in `compare`.
        encoders: as there.
        miners: as there.
        seeds: as there.
        on_progress: called while steps are tried, which is done if the cells have no time budget.
        options: the other arguments of `compare`.

    Raises:
        UserError: as `compare`, before the first cell.

    >>> plan_comparison(losses="contrastive,cosent", seeds=2, budget_minutes=3, encoders="static").hours
    0.2
    """
    given = {"budget_minutes": 5.0, "epochs": NO_LIMIT, "patience": 0, **options}
    asked = _asked(given, losses, encoders, miners, seeds)
    minutes: dict[str, float] = {}
    for cell in {cell.encoder: cell for cell in reversed(asked.cells)}.values():
        config = cell.config(asked.base, Path())
        minutes[cell.encoder] = config.budget_minutes
        if not config.budget_minutes:
            guides = Guides(build_objective(config, cell.functions(asked.functions)), {}, None)
            minutes[cell.encoder] = estimate_plan(Plan(config, asked.parts, guides), on_progress).seconds / 60
    return ComparisonPlan(asked.cells, asked.parts.split, minutes)


def _cells(base: Config, losses: Any, encoders: Any, miners: Any, seeds: int) -> tuple[list[Cell], dict[str, Function]]:
    """The cells of a comparison, whose objectives can be built, and losses and miners that are functions, by name."""
    losses, own_losses = names_of("losses", losses)
    miners, own_miners = names_of("miners", miners or [base.miner])
    cells = cells_of(
        parse_list("encoders", encoders or [base.encoder]),
        expand_losses(parse_list("losses", losses)),
        parse_list("miners", miners),
        range(base.seed, base.seed + seeds),
    )
    functions = own_losses | own_miners
    for cell in cells:
        build_objective(cell.config(base, Path()), cell.functions(functions))
    return cells, functions


def check_experiment(base: Config, seeds: int, where: str) -> None:
    """Raises UserError, which names the experiment, if options contradict each other."""
    if seeds != int(seeds) or seeds < 1:
        raise UserError(f"{where}: seeds must be a whole number, at least 1, not {seeds}")
    if teachers_to_train(base.probability_teachers):
        raise UserError(f"{where}: every run would train its own teacher; train one first, then name its folder")


def try_encoders(cells: Sequence[Cell], base: Config, texts: Sequence[str]) -> None:
    """Raises UserError if an encoder cannot be built."""
    for cell in {cell.encoder: cell for cell in cells}.values():
        config = cell.config(base, Path())
        build_encoder(
            config.encoder,
            vectors=config.vectors,
            texts=texts,
            max_length=config.max_length,
            share_vectors=config.share_vectors,
            prompt=config.prompt,
            project=config.project,
        )


@contextlib.contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Says on Ctrl-C how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        log.warning("interrupted; the same command resumes from the finished cells in %s", folder / CELLS)
        raise


@dataclass(frozen=True)
class CellRun:
    """A cell that is to be trained.

    Attributes:
        cell: which one.
        config: its options.
        parts: makes its data when its turn comes.
        functions: losses and miners that are functions, by name.
    """

    cell: Cell
    config: Config
    parts: Callable[[], Parts]
    functions: Mapping[str, Function] = field(default_factory=dict)

    @property
    def custom(self) -> str:
        """The digest of the user's own code that the cell runs; '' if there is none."""
        rows = rows_named([self.cell.encoder, self.cell.loss, self.cell.miner])
        return digest([*self.functions.values(), *rows], self.config.imports)


def train_cells(runs: Sequence[CellRun], folder: Path, keep_checkpoints: bool, on_progress: OnProgress) -> list[Record]:
    """A record for each cell; those of finished cells are read from the folder."""
    records = {run.cell: store.read_record(folder, run.cell, run.custom) for run in runs}
    done = sum(record is not None for record in records.values())
    for run in (run for run in runs if not records[run.cell]):
        cell, config = run.cell, run.config
        now = Progress(cell.title, done, len(runs), note="loading")
        on_progress(now)
        _remove_checkpoint(config)
        arrays = None
        try:
            result, arrays = run_in_process(
                functools.partial(train_cell, config, run.parts(), run.functions, custom_rows()),
                store.cell_file(folder, cell, "log"),
                _steps(now, on_progress),
            )
            record = Record(cell, result)
        except ProcessError as error:
            record = Record(cell, None, str(error))
        if not keep_checkpoints:
            _remove_checkpoint(config)
        store.write_record(folder, record, arrays, run.custom)
        records[cell], done = record, done + 1
        on_progress(dataclasses.replace(now, done=done, note=_note(record)))
    return [record for record in records.values() if record]


def _steps(now: Progress, on_progress: OnProgress) -> OnProgress:
    """Reports the steps of a training run as the note of its cell."""
    return lambda training: on_progress(dataclasses.replace(now, note=f"step {training.done:,}"))


def _note(record: Record) -> str:
    if record.result is None:
        return f"failed: {record.error}"
    return f"F1 {record.result.f1:.3f}  AP {record.result.average_precision:.3f}"


def _remove_checkpoint(config: Config) -> None:
    """Removes the checkpoint of a cell, finished or partial."""
    for path in (Path(config.output), partial_of(Path(config.output))):
        shutil.rmtree(path, ignore_errors=True)
