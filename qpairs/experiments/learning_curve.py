"""How F1 grows with the number of labelled pairs, and what more of them would add.

Each size is trained in several runs, each with its own seed and draw of the training pairs: whole components, so that a
subset looks like a smaller data set, and the larger ones of a draw hold the smaller ones. Validation and test stay as
they are. A run is a cell of the folder, as in a comparison, so that an interrupted curve can be resumed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpairs.config import Config, config_from, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.progress import OnProgress, ignore
from qpairs.core.tables import write_table
from qpairs.data.parts import Parts, load_parts, separate_pairs
from qpairs.data.subsets import component_order
from qpairs.evaluation.pictures import KINDS
from qpairs.experiments import comparison_folder as store
from qpairs.experiments.cells import Cell, Record, judged_pairs
from qpairs.experiments.compare import CellRun, check_experiment, interruptible, train_cells, try_encoders
from qpairs.experiments.curve_plot import plot_curves
from qpairs.experiments.curves import MEASURES, Curve, curves_of, default_sizes
from qpairs.experiments.results import cell_line
from qpairs.metrics.power_law import LEAST_SIZES
from qpairs.objectives.plugins import register_custom
from qpairs.training.guides import build_objective

if TYPE_CHECKING:
    import pandas

CURVE, CHART = "curve.csv", "learning_curve.svg"
CHARTS = tuple(str(Path(CHART).with_suffix(kind)) for kind in KINDS)
FOLDER = store.FolderKind(
    "learning curve", "learning_curve_options.json", (store.RESULTS, CURVE, *CHARTS, "learning_curve.json")
)


@dataclass(frozen=True)
class LearningCurve:
    """Scores against the number of training pairs.

    Attributes:
        curves: measure (f1, average_precision) -> its curve.
        records: of all runs.
        part: the evaluated pairs: test, or if there is none, validation, cross-fitted.
        n: how many they are.
        config: of a run on all pairs.
        notes: that a reader must know.

    >>> curve = learning_curve(data="mine.csv", encoder="static", output="curve/")  # doctest: +SKIP
    >>> curve.title  # doctest: +SKIP
    'static; 832 test pairs; 3 seeds'
    """

    curves: Mapping[str, Curve]
    records: Sequence[Record]
    part: str
    n: int
    config: Config
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """Encoder, evaluated pairs and seeds in a line."""
        seeds = len({record.cell.seed for record in self.records})
        judged = f"{self.n:,} {self.part} pairs" + (", cross-fitted" if self.part == "validation" else "")
        return f"{self.config.encoder}; {judged}; {seeds} seed{'s' if seeds > 1 else ''}"

    def to_frame(self) -> pandas.DataFrame:
        """A line per size, trained and predicted, as in curve.csv.

        >>> curve.to_frame()[["measure", "kind", "pairs", "value"]]  # doctest: +SKIP
        """
        import pandas

        lines = []
        for measure, curve in self.curves.items():
            for point in curve.points:
                seen = {"kind": "trained", "pairs": point.pairs, "value": point.mean, "runs": len(point.values)}
                lines.append(
                    {"measure": measure, **seen, **_ends(point.interval), "fitted": float(curve.law.at(point.pairs))}
                )
            for ahead in curve.predictions:
                said = {"kind": "predicted", "pairs": ahead.pairs, "value": ahead.value, **_ends(ahead.interval)}
                gain = {"gain": ahead.gain, "gain_low": ahead.gain_interval[0], "gain_high": ahead.gain_interval[1]}
                lines.append({"measure": measure, **said, "fitted": ahead.value, **gain})
        return pandas.DataFrame(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, as in learning_curve.json.

        >>> curve.to_dict()["curves"]["f1"]  # doctest: +SKIP
        """
        return {
            "title": self.title,
            "part": self.part,
            "n": self.n,
            "config": to_dict(self.config),
            "curves": {name: curve.to_dict() for name, curve in self.curves.items()},
            "notes": list(self.notes),
        }


def _ends(interval: tuple[float, float]) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def learning_curve(
    *,
    sizes: str | Sequence[int] = (),
    seeds: int = 3,
    output: str = "runs/learning-curve",
    equal_epochs: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    **options: Any,
) -> LearningCurve:
    """Trains on more and more of the labelled pairs, and predicts the gain from twice as many.

    Started again in the same folder, it trains the runs that failed or were interrupted, and keeps the finished ones;
    more seeds and sizes may be asked for. In a script, call it under `if __name__ == "__main__":`: each run is a
    process that imports the script.

    Args:
        sizes: numbers of training pairs, a list or one text with commas, four at least; default: all, half of them and
            so on, six sizes.
        seeds: runs of each size, with the seeds `seed`, `seed + 1`, ...; the split is that of the first.
        output: folder of the results: learning_curve.json, curve.csv, results.csv (a line per run), learning_curve.svg.
        equal_epochs: whether each size is gone through for `epochs` passes. If not, all sizes take as many steps and
            evaluations as all pairs take in `epochs`, unless `patience` or `budget_minutes` ends them: then only the
            pairs differ.
        overwrite: start again in a folder that holds another curve.
        on_progress: counts finished runs; the stage names the run, the note says how far it is or its result.
        options: further fields of `Config`, for every run.

    Raises:
        UserError: a mistake that the user can fix, before the first run; or too few sizes could be trained.

    >>> curve = learning_curve(data="mine.csv", encoder="static", output="curve/")  # doctest: +SKIP
    >>> curve.curves["f1"].in_words  # doctest: +SKIP
    'twice the pairs (13,334) would bring 0.021 F1 (0.012 to 0.034)'
    """
    values, pairs_given = separate_pairs(options)
    base, folder = config_from(values, where="learning-curve"), Path(output)
    check_experiment(base, seeds, "learning-curve")
    register_custom(base.imports)
    build_objective(base)
    parts = load_parts(base, pairs_given)
    counts = _sizes(sizes, len(parts.train))
    try_encoders([Cell(base.encoder, base.loss, base.miner, base.seed)], base, parts.train.questions[:1000])
    runs = _runs(base, parts, counts, seeds, folder, equal_epochs)
    manifest = store.manifest_of(base, parts) | {
        **{name: getattr(base, name) for name in ("encoder", "loss", "miner")},
        "equal_epochs": equal_epochs,
    }
    with store.hold_folder(folder, manifest, overwrite=overwrite, kind=FOLDER), interruptible(folder):
        records = train_cells(runs, folder, False, on_progress)
        answers = {record.cell: store.read_arrays(folder, record.cell) for record in records if record.result}
        part, pairs = judged_pairs(parts)
        curves = curves_of(records, answers, seed=base.seed)
        found = LearningCurve(curves, records, part, len(pairs), base, _notes(records, part, seeds))
        _write(folder, found)
    return found


def _runs(
    base: Config, parts: Parts, counts: Sequence[int], seeds: int, folder: Path, equal_epochs: bool
) -> list[CellRun]:
    cells = [
        Cell(base.encoder, base.loss, base.miner, base.seed + seed, size) for size in counts for seed in range(seeds)
    ]
    return [
        CellRun(
            cell, _config(cell, base, folder, len(parts.train), equal_epochs), functools.partial(_parts, cell, parts)
        )
        for cell in cells
    ]


def _sizes(asked: str | Sequence[int], pairs: int) -> list[int]:
    """The sizes of a curve, rising.

    Raises:
        UserError: not whole numbers, too few, or more pairs than there are.
    """
    try:
        listed: list[str | int] = [*(asked.split(",") if isinstance(asked, str) and asked else asked)]
        counts = sorted({int(part) for part in listed}) or default_sizes(pairs)
    except (TypeError, ValueError):
        raise UserError(f"sizes: {asked!r}, must be whole numbers with commas between them") from None
    if counts[0] < 2 or counts[-1] > pairs:
        wrong = counts[0] if counts[0] < 2 else counts[-1]
        raise UserError(f"sizes: {wrong:,}, must be 2 <= size <= {pairs:,}, the number of training pairs")
    if len(counts) < LEAST_SIZES:
        raise UserError(
            f"sizes: {', '.join(map(str, counts))}; a curve needs {LEAST_SIZES} of them, and there are {pairs:,} pairs"
        )
    return counts


def _config(cell: Cell, base: Config, folder: Path, pairs: int, equal_epochs: bool) -> Config:
    config = cell.config(base, folder)
    assert cell.pairs
    if equal_epochs:
        return config
    times = pairs / cell.pairs
    return dataclasses.replace(config, epochs=base.epochs * times, evaluations=base.evaluations / times)


def _parts(cell: Cell, parts: Parts) -> Parts:
    return dataclasses.replace(parts, train=parts.train.subset(component_order(parts.train, cell.seed)[: cell.pairs]))


def _notes(records: Sequence[Record], part: str, seeds: int) -> list[str]:
    notes = []
    if seeds == 1:
        notes.append(
            "with one seed, the variation between draws of the pairs shows only in the distance of the points from "
            "the curve; use --seeds 3 or more"
        )
    if part == "validation":
        notes.append(
            "scores are cross-fitted on the pairs that also chose each run's best checkpoint: name others with --test"
        )
    if failed := [record for record in records if record.error]:
        notes.append(f"{len(failed)} runs failed, the first with: {failed[0].error}")
    return notes


def _write(folder: Path, found: LearningCurve) -> None:
    """Writes the tables, the chart and the JSON file."""
    import pandas

    write_table(folder / store.RESULTS, pandas.DataFrame([cell_line(record) for record in found.records]))
    write_table(folder / CURVE, found.to_frame())
    write_text(folder / "learning_curve.json", json.dumps(found.to_dict(), indent=1) + "\n")
    plot_curves([found.curves[name] for name in MEASURES], folder / CHART, title=found.title)
