"""The bake-off: encoders, losses and miners on the same pairs, split and seeds, each for the same wall-clock time.

A cell of the comparison is one training run, in a process of its own: a crash costs one cell, and memory is the cell's
own. What a cell gave stays in OUTPUT/cells, so that an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import math
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qpairs import metrics
from qpairs.config import Config, config_from, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, exclusive_lock
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.encoders.build import build_encoder, encoder_note, takes_vectors, tower_names
from qpairs.evaluation.evaluate import cross_fitted
from qpairs.experiments import plots
from qpairs.models.base import score_pairs
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.objective import objective
from qpairs.training.fit import build_objective, partial_of, train
from qpairs.training.teachers import trained_here
from qpairs.training.trainer import Progress

log = logging.getLogger(__name__)

SAMPLERS = {"offline": "triplets", "groups": "groups"}  # named beside the miners: they too choose what a loss sees
PARTNER = "softmax + 0.003*{}"  # for a loss that draws together alone; lambda as in Wen et al. 2016
NO_LIMIT = 1e3  # epochs: the budget ends a cell first
TRIED = 1000  # questions whose vocabulary an encoder is tried with
TOLD = 0.2  # seconds between two reports of a cell's progress
PATIENCE = 10  # seconds that a process has to end by itself
MANIFEST = "compare.json"
CELLS = "cells"
SCORES = ("f1", "average_precision", "mining_average_precision")
COSTS = ("seconds", "steps", "epochs", "peak_bytes")
LEGEND = "dot: mean over the seeds; tick: a seed; bar: 95 % interval, bootstrap over components"
RESULTS, SUMMARY, CHART = "results.csv", "summary.csv", "comparison.png"

Interval = tuple[float, float]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Cell:
    """A training run of a comparison."""

    encoder: str
    loss: str
    miner: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called: readable, and as unique as the cell."""
        parts = [str(value) for value in dataclasses.astuple(self)]
        readable = re.sub(r"[^\w.]+", "-", "-".join(parts))[:100]
        return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"

    def config(self, base: Config, folder: Path) -> Config:
        """What `train` is told: the base, with the cell's own choices.

        Word vectors and the score of a head are left to the encoders and losses that have them.
        """
        takes = any(map(takes_vectors, tower_names(self.encoder)))
        return dataclasses.replace(
            base,
            encoder=self.encoder,
            vectors=base.vectors if takes else "",
            loss=self.loss,
            score=base.score if objective(self.loss).has_head else "cosine",
            miner="everything" if self.miner in SAMPLERS else self.miner,
            sampler=SAMPLERS.get(self.miner, base.sampler),
            seed=self.seed,
            output=str(folder / CELLS / self.name),
        )


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        f1: on the judged pairs; where they are those of validation, cross-fitted.
        f1_interval: 95 % by bootstrap over components.
        threshold: chosen on all of validation.
        seconds: of training, with the evaluations in it; loading and the verdict are outside.
        steps, epochs: of training.
        peak_bytes: greatest resident memory of the cell's process (not of a GPU).
        report: on the judged pairs, as in `evaluation.Report.to_dict`.
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
        """Of the order of the judged pairs."""
        return float(self.report["average_precision"])

    @property
    def average_precision_interval(self) -> Interval:
        """95 % by bootstrap over components."""
        low, high = self.report["average_precision_interval"]
        return low, high

    @property
    def mining_average_precision(self) -> float:
        """Of all pairs of the judged question table; NaN where that is not measured."""
        return float(self.report["retrieval"].get("mining_average_precision", math.nan))


@dataclass(frozen=True)
class Record:
    """What became of a cell: its result, or why there is none."""

    cell: Cell
    result: Result | None
    error: str = ""


Outcome = tuple[Result, Arrays] | str  # of a cell's process: what it measured, or why it did not


@dataclass(frozen=True)
class Row:
    """The cells of one encoder, loss and miner.

    Attributes:
        encoder, loss, miner: what they have in common.
        records: one for each seed.
        difference: of the mean F1 to that of the best row, paired; None for the best, and where no cell finished.
    """

    encoder: str
    loss: str
    miner: str
    records: tuple[Record, ...]
    difference: metrics.Difference | None = None

    @property
    def results(self) -> list[Result]:
        """Of the cells that finished."""
        return [record.result for record in self.records if record.result]

    def values(self, measure: str) -> list[Any]:
        """An attribute of each result."""
        return [getattr(result, measure) for result in self.results]

    def mean(self, measure: str) -> float:
        """Mean over the seeds; NaN where no cell finished."""
        return float(np.mean(self.values(measure) or [math.nan]))

    def sd(self, measure: str) -> float:
        """Standard deviation over the seeds; NaN of fewer than two."""
        values = self.values(measure)
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    def interval(self, measure: str) -> Interval:
        """The ends of the cells' own intervals of f1 or average_precision, each a mean over the seeds."""
        low, high = np.mean(self.values(f"{measure}_interval"), axis=0)
        return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """A finished comparison, the best row first.

    Attributes:
        rows: one for each encoder, loss and miner, by mean F1.
        part: what F1 is on: test, or where there is none, validation, cross-fitted.
        n: pairs of that part.
        config: the base of every cell.
        notes: what must be said beside the figures.
    """

    rows: tuple[Row, ...]
    part: str
    n: int
    config: Config
    notes: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        """Those of all rows."""
        return [record for row in self.rows for record in row.records]

    @property
    def title(self) -> str:
        """What every figure depends on, in a line."""
        pairs = f"{self.n:,} {self.part} pairs" + (", cross-fitted" if self.part == "validation" else "")
        limit = (
            f"{self.config.budget_minutes:g} min" if self.config.budget_minutes else f"{self.config.epochs:g} epochs"
        )
        seeds = len({record.cell.seed for record in self.records})
        return f"{pairs}; {limit} a cell, {seeds} seed{'s' if seeds > 1 else ''}"

    def to_frame(self) -> pandas.DataFrame:
        """One line a row, as in summary.csv."""
        return pandas.DataFrame([_summary_line(row) for row in self.rows])


@dataclass(frozen=True)
class State:
    """How far a comparison is.

    Attributes:
        cells, finished: how many there are, and have been finished.
        cell: the one that is being trained, or was just finished.
        training: how far it is; None before its training starts.
        record: what became of it; None before it has finished.
    """

    cells: int
    finished: int
    cell: Cell
    training: Progress | None = None
    record: Record | None = None


def compare(
    *,
    losses: str | Sequence[str] = "all",
    encoders: str | Sequence[str] = "",
    miners: str | Sequence[str] = "",
    seeds: int = 3,
    output: str = "runs/compare",
    budget_minutes: float = 5.0,
    epochs: float = NO_LIMIT,
    patience: int = 0,
    keep_checkpoints: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[State], None] | None = None,
    **options: Any,
) -> Comparison:
    """Trains every encoder with every loss and miner, and says which are better and by how much.

    The pairs are loaded and split once. Cells that failed or were cut short are trained again when the same comparison
    is started anew; finished ones are not. In a script, call it under `if __name__ == "__main__":`, since its cells are
    processes that import the script.

    Args:
        losses: expressions as in `Config.loss`, a list or one text with commas between them; `all` is every loss there
            is. Center loss, which cannot be trained alone, stands beside softmax.
        encoders: names as in `Config.encoder`; without them, that of the options.
        miners: expressions as in `Config.miner`; also `offline` (negatives mined before each epoch, the sampler
            `triplets`) and `groups` (the sampler of that name); without them, that of the options.
        seeds: cells of each kind, of the seeds `seed`, `seed + 1`, ...; the split is that of the first.
        output: folder of the results: results.csv (a line a cell), summary.csv, comparison.png, cells/.
        budget_minutes: of training for each cell; 0: as long as the epochs last.
        epochs: passes over the pairs, at most.
        patience: as in `Config`; 0, so that all cells train equally long.
        keep_checkpoints: whether those of the cells stay, in cells/.
        overwrite: start anew in a folder that holds another comparison.
        on_progress: called before, while and after each cell is trained.
        options: further fields of `Config`, for every cell.

    Raises:
        UserError: something that the user can mend, before the first cell is trained.
    """
    base = config_from(
        {**options, "budget_minutes": budget_minutes, "epochs": epochs, "patience": patience}, where="compare"
    )
    if not budget_minutes and epochs >= NO_LIMIT:
        raise UserError("compare: without a budget, say for how many --epochs the cells are trained")
    if seeds < 1:
        raise UserError(f"compare: seeds must be at least 1, not {seeds}")
    if trained_here(base.teacher):
        raise UserError("compare: every run would train a teacher of its own; train one first, then name its folder")
    axes = (
        _items("encoders", encoders or [base.encoder]),
        _losses(_items("losses", losses)),
        _items("miners", miners or [base.miner]),
        range(base.seed, base.seed + seeds),
    )
    cells, folder = [Cell(*choice) for choice in itertools.product(*axes)], Path(output)
    for cell in cells:
        build_objective(cell.config(base, folder))
    parts = load_parts(base)
    for cell in {cell.encoder: cell for cell in cells}.values():
        _try_encoder(cell.config(base, folder), parts.train.questions[:TRIED])
    with _own(folder, _manifest(base, parts), overwrite=overwrite):
        try:
            records = _train_all(cells, base, parts, folder, keep_checkpoints, on_progress or (lambda state: None))
        except KeyboardInterrupt:
            log.warning("interrupted; the same command goes on from the finished cells in %s", folder / CELLS)
            raise
        comparison = _compared(records, base, parts, folder)
        _write(comparison, folder)
    return comparison


# The cells and their base


def _items(what: str, listed: str | Sequence[str]) -> list[str]:
    """The distinct items of a list, parted by the commas that stand outside parentheses."""
    texts = [listed] if isinstance(listed, str) else listed
    found = [item.strip() for text in texts for item in re.split(r",(?![^()]*\))", text)]
    if not all(found) or not found:
        raise UserError(f"compare: {what}: an item of {', '.join(texts)!r} is empty")
    return list(dict.fromkeys(found))


def _losses(expressions: list[str]) -> list[str]:
    """The expressions, with `all` spelt out, and beside softmax those that cannot be trained alone."""
    named = [name for loss in expressions for name in (LOSSES if loss == "all" else [loss])]
    alone = {name for name, entry in LOSSES.items() if entry.positives_only}
    return list(dict.fromkeys(PARTNER.format(name) if name in alone else name for name in named))


def _try_encoder(config: Config, texts: Sequence[str]) -> None:
    """Raises UserError where the encoder of a config cannot be built."""
    build_encoder(
        config.encoder,
        vectors=config.vectors,
        texts=texts,
        max_length=config.max_length,
        share_vectors=config.share_vectors,
    )


def _judged(parts: Parts) -> tuple[str, Pairs]:
    """The part that F1 is on."""
    return ("validation", parts.validation) if parts.test is None else ("test", parts.test)


def _components(pairs: Pairs) -> NDArray[np.int64]:
    """(n_pairs,) component of each pair."""
    return question_components(pairs)[pairs.left]


def _manifest(base: Config, parts: Parts) -> dict[str, Any]:
    """What the cells of a folder must have in common to be compared pair by pair."""
    chosen = ("encoder", "loss", "miner", "output")  # by each cell
    part, pairs = _judged(parts)
    digest = hashlib.sha256(pairs.labels.tobytes() + _components(pairs).tobytes()).hexdigest()[:16]
    return {
        **{name: value for name, value in to_dict(base).items() if name not in chosen},
        "split": parts.split["fingerprint"],
        "judged": [part, digest],
    }


@contextmanager
def _own(folder: Path, manifest: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """Holds the folder of a comparison against other processes, once it is sure to be that of this comparison."""
    file = folder / MANIFEST
    if folder.exists() and not (folder.is_dir() and (file.exists() or not any(folder.glob("[!.]*")))):
        raise UserError(f"{folder}: is in use, and holds no comparison; name another folder with --output")
    with exclusive_lock(folder):
        kept = json.loads(file.read_text("utf-8")) if file.exists() else manifest
        differ = [name for name in {**kept, **manifest} if kept.get(name) != manifest.get(name)]
        if differ and not overwrite:
            raise UserError(
                f"{folder}: holds a comparison with another {', '.join(differ)}; "
                "name another folder with --output, or start anew with --overwrite"
            )
        if overwrite:
            shutil.rmtree(folder / CELLS, ignore_errors=True)
            for name in (RESULTS, SUMMARY, CHART):
                (folder / name).unlink(missing_ok=True)
        (folder / CELLS).mkdir(exist_ok=True)
        with atomic_file(file) as fresh:
            fresh.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        yield


# One cell after the other


def _train_all(
    cells: Sequence[Cell],
    base: Config,
    parts: Parts,
    folder: Path,
    keep_checkpoints: bool,
    tell: Callable[[State], None],
) -> list[Record]:
    """A record for each cell; those that finished earlier are read."""
    records = {cell: _read(folder, cell) for cell in cells}
    for cell in (cell for cell, record in records.items() if not record):
        now = State(len(cells), sum(record is not None for record in records.values()), cell)
        tell(now)
        config = cell.config(base, folder)
        _discard(config)
        outcome = _in_a_process(config, parts, _file(folder, cell, "log"), _training(now, tell))
        if not keep_checkpoints:
            _discard(config)
        records[cell] = record = _save(folder, cell, outcome)
        tell(dataclasses.replace(now, finished=now.finished + 1, record=record))
    return [record for record in records.values() if record]


def _training(now: State, tell: Callable[[State], None]) -> Callable[[Progress], None]:
    return lambda progress: tell(dataclasses.replace(now, training=progress))


def _discard(config: Config) -> None:
    """Removes the checkpoint of a cell, and what is left of an unfinished one."""
    for path in (Path(config.output), partial_of(Path(config.output))):
        shutil.rmtree(path, ignore_errors=True)


def _save(folder: Path, cell: Cell, outcome: Outcome) -> Record:
    """Writes what became of a cell; where the JSON is, all is."""
    if isinstance(outcome, str):
        record = Record(cell, None, outcome)
    else:
        record = Record(cell, outcome[0])
        with atomic_file(_file(folder, cell, "safetensors")) as fresh:
            save_file(outcome[1], fresh)
    with atomic_file(_file(folder, cell, "json")) as fresh:
        fresh.write_text(json.dumps(dataclasses.asdict(record), indent=1) + "\n", encoding="utf-8")
    return record


def _read(folder: Path, cell: Cell) -> Record | None:
    """The record of a cell that has finished; None where it has not, or has failed."""
    try:
        result = json.loads(_file(folder, cell, "json").read_text("utf-8"))["result"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Record(cell, Result(**result)) if result else None


def _file(folder: Path, cell: Cell, kind: str) -> Path:
    return folder / CELLS / f"{cell.name}.{kind}"


def _in_a_process(config: Config, parts: Parts, log_file: Path, tell: Callable[[Progress], None]) -> Outcome:
    """What `_measure` gives in a fresh process, or why it gave nothing; the process never outlives the call."""
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    process = context.Process(target=_work, args=(end, log_file), daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is for this process to act on
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    end.close()
    started = False
    try:
        pipe.send((config, parts))
        while isinstance(message := pipe.recv(), Progress):
            started = True
            tell(message)
    except (EOFError, ConnectionError):
        process.join()
        if process.exitcode == 1 and not started:
            raise UserError(
                'compare: no process can be started; in a script, call it under `if __name__ == "__main__":`'
            ) from None
        return _death(process.exitcode or 0)
    except BaseException:
        process.terminate()
        raise
    else:
        outcome: Outcome = message
        return outcome
    finally:
        pipe.close()
        process.join(PATIENCE)
        process.kill()
        process.join()


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    hint = " (the system may be out of memory)" if -code == signal.SIGKILL else ""
    return f"the process was ended by {signal.Signals(-code).name}{hint}"


def _work(pipe: Connection, log_file: Path) -> None:
    """The process of a cell: reads config and parts, sends progress, and in the end the result or an error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log_file.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    logging.basicConfig(level=logging.INFO)
    try:
        config, parts = pipe.recv()
        pipe.send(_measure(config, parts, pipe.send))
    except Exception as error:
        log.exception("the cell has failed")
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        pipe.send(kind + " ".join(str(error).partition(";")[0].split()))  # what follows is how to mend a run of train


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _measure(config: Config, parts: Parts, tell: Callable[[Progress], None]) -> tuple[Result, Arrays]:
    """Trains and judges.

    Returns:
        The result; verdict (n,) bool, label (n,) int8 and component (n,) int64 of the judged pairs.
    """
    begun = ended = told = 0.0
    latest = Progress(0, 0, 0.0, 0.0)

    def on_progress(now: Progress) -> None:
        nonlocal begun, ended, told, latest
        ended, latest = time.monotonic(), now
        begun = begun or ended
        if ended - told > TOLD:
            told = ended
            tell(now)

    checkpoint = train(config, parts=parts, on_progress=on_progress)
    part, pairs = _judged(parts)
    components = _components(pairs)
    scores, _ = score_pairs(checkpoint, pairs)
    if part == "test":
        verdict = checkpoint.verdict.pair.decide(scores)
    else:
        verdict = cross_fitted(scores, pairs.labels, components)
    result = Result(
        f1=metrics.confusion(verdict, pairs.labels, 0.5).f1,
        f1_interval=metrics.bootstrap_interval(verdict, pairs.labels, components, 0.5)["f1"],
        threshold=checkpoint.verdict.pair.threshold,
        seconds=ended - begun,
        steps=latest.step,
        epochs=latest.epoch,
        peak_bytes=_peak_memory(),
        report=checkpoint.scores[part],
    )
    return result, {"verdict": verdict, "label": pairs.labels, "component": components}


def _peak_memory() -> int:
    """Greatest resident memory of this process in bytes.

    On Linux getrusage has in it that of the process that started this one, and only /proc tells them apart.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# The comparison


def _compared(records: Sequence[Record], base: Config, parts: Parts, folder: Path) -> Comparison:
    """The records as rows, each set against the best."""
    kinds: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        kinds.setdefault((record.cell.encoder, record.cell.loss, record.cell.miner), []).append(record)
    rows = [Row(*kind, tuple(members)) for kind, members in kinds.items()]
    rows.sort(key=lambda row: row.mean("f1") if row.results else -1.0, reverse=True)
    part, pairs = _judged(parts)
    best, components = _verdicts(folder, rows[0]), _components(pairs)
    for place, row in enumerate(rows):
        if place and row.results:
            answers = _verdicts(folder, row)
            difference = metrics.paired_difference(answers, best, pairs.labels, components, seed=base.seed)
            rows[place] = dataclasses.replace(row, difference=difference)
    return Comparison(tuple(rows), part, len(pairs), base, tuple(_notes(rows, part, base.score)))


def _verdicts(folder: Path, row: Row) -> list[NDArray[np.bool_]]:
    """What each finished cell of a row says of the judged pairs, (n,) each."""
    finished = [record.cell for record in row.records if record.result]
    return [load_file(_file(folder, cell, "safetensors"))["verdict"] for cell in finished]


def _notes(rows: Sequence[Row], part: str, score: str) -> Iterator[str]:
    """What must be said beside the figures of these rows."""
    losses = dict.fromkeys(row.loss for row in rows)
    for name, entry in LOSSES.items():
        if entry.positives_only and PARTNER.format(name) in losses:
            yield f"{name} cannot be trained alone: it stands beside softmax"
    if score == "cosine":
        for loss in losses:
            if objective(loss).has_head:
                yield f"{loss} is judged by its cosine; --score head judges it by its classifier"
    for row in rows:
        if any(result.report["collapsed"] for result in row.results):
            yield f"{row.encoder}, {row.loss}, {row.miner} has collapsed: its similarities do not vary"
    if part == "validation":
        yield "F1 is cross-fitted on the pairs that also chose each run's best state: name unseen ones with --test"
    yield from dict.fromkeys(note for row in rows if (note := encoder_note(row.encoder)))


def _cell_line(record: Record) -> dict[str, Any]:
    measured = {name: getattr(record.result, name) for name in (*SCORES, *COSTS)} if record.result else {}
    return {**dataclasses.asdict(record.cell), **measured, "error": record.error}


def _summary_line(row: Row) -> dict[str, Any]:
    difference = row.difference
    return {
        "encoder": row.encoder,
        "loss": row.loss,
        "miner": row.miner,
        "seeds": len(row.records),
        "finished": len(row.results),
        **{name: row.mean(name) for name in (*SCORES, *COSTS)},
        **{f"{name}_sd": row.sd(name) for name in SCORES},
        "difference": difference and difference.value,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "distinguishable": difference and difference.distinguishable,
    }


def _write(comparison: Comparison, folder: Path) -> None:
    """The tables, and the chart where matplotlib is installed."""
    cells = pandas.DataFrame([_cell_line(record) for record in comparison.records])
    for name, table in ((RESULTS, cells), (SUMMARY, comparison.to_frame())):
        with atomic_file(folder / name) as fresh:
            table.to_csv(fresh, index=False)
    panels: dict[str, dict[str, list[plots.Dot]]] = {}
    several_miners = len({row.miner for row in comparison.rows}) > 1
    for row in comparison.rows:
        if row.results:
            label = f"{row.loss}, {row.miner}" if several_miners else row.loss
            panels.setdefault(row.encoder, {})[label] = [
                plots.Dot(row.mean(measure), row.interval(measure), row.values(measure)) for measure in SCORES[:2]
            ]
    if not panels:
        return
    try:
        with atomic_file(folder / CHART) as fresh:
            plots.dots(panels, ("F1", "average precision"), fresh, title=comparison.title, legend=LEGEND)
    except UserError as error:
        log.warning("%s is left out: %s", CHART, error)
