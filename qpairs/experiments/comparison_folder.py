"""The folder of a comparison: its manifest, the record of each cell, tables and a chart.

OUTPUT/compare.json         what all cells have in common
OUTPUT/cells/NAME.json      record of a cell; written last
OUTPUT/cells/NAME.safetensors, NAME.log
OUTPUT/results.csv          a line per cell
OUTPUT/summary.csv          a line per encoder, loss and miner
OUTPUT/comparison.svg       the chart; with matplotlib also .pdf and .png
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qpairs.config import Config, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, exclusive_lock, refuse_file, write_text, writing
from qpairs.core.manifests import read_json, reading_weights
from qpairs.core.shapes import anything, each, named, number, optional, record, text, whole
from qpairs.core.tables import write_table
from qpairs.data.parts import Parts
from qpairs.evaluation.pictures import KINDS
from qpairs.experiments import plots
from qpairs.experiments.cells import CELLS, Arrays, Cell, Record, Result, components_of, judged_pairs
from qpairs.experiments.results import SCORES, Comparison

log = logging.getLogger(__name__)

RESULTS, SUMMARY, CHART = "results.csv", "summary.csv", "comparison.svg"
LEGEND = "large dot: mean over the seeds; small dot: a seed; bar: 95 % interval, over questions and seeds"
_PAIR = each(number(), length=2)
RECORD = record(
    {
        "result": optional(
            record(
                {
                    "f1": number(0, 1),
                    "f1_interval": _PAIR,
                    "threshold": number(),
                    "seconds": number(0),
                    "steps": whole(),
                    "epochs": number(0),
                    "peak_bytes": whole(),
                    "report": record(
                        {
                            "average_precision": number(0, 1),
                            "average_precision_interval": _PAIR,
                            "retrieval": optional(named(anything)),
                        },
                        others=True,
                    ),
                }
            )
        )
    },
    {"custom": text},
    others=True,
)  # of a cell, in its file
OF_A_CELL = ("encoder", "loss", "miner", "output")  # options that differ between cells


@dataclass(frozen=True)
class FolderKind:
    """What a folder of cells is for.

    Attributes:
        name: in messages.
        manifest: the file that says what all its cells have in common.
        results: files that are written at the end.
    """

    name: str
    manifest: str
    results: tuple[str, ...]


CHARTS = tuple(str(Path(CHART).with_suffix(kind)) for kind in KINDS)
COMPARISON = FolderKind("comparison", "compare.json", (RESULTS, SUMMARY, *CHARTS))


def manifest_of(base: Config, parts: Parts) -> dict[str, Any]:
    """The options, split and evaluated pairs that all cells of a folder must share to be compared pair by pair."""
    part, pairs = judged_pairs(parts)
    digest = hashlib.sha256(pairs.labels.tobytes() + components_of(pairs).tobytes()).hexdigest()[:16]
    return {
        **{name: value for name, value in to_dict(base).items() if name not in OF_A_CELL},
        "split": parts.split["fingerprint"],
        "judged": [part, digest],
    }


@contextmanager
def hold_folder(
    folder: Path, manifest: dict[str, Any], *, overwrite: bool, kind: FolderKind = COMPARISON
) -> Iterator[None]:
    """Locks the folder of an experiment, once it is certain that it holds this one or none.

    Raises:
        UserError: it holds something else, or another experiment and `overwrite` is not given; or it is locked.
    """
    file = folder / kind.manifest
    refuse_file(folder)
    if folder.exists() and not file.exists() and any(folder.glob("[!.]*")):
        raise UserError(f"{folder}: is not empty, and does not hold a {kind.name}; name another folder with --output")
    with exclusive_lock(folder), writing(folder):
        kept = _read(file, overwrite=overwrite) if file.exists() else manifest
        differ = [name for name in {**kept, **manifest} if kept.get(name) != manifest.get(name)]
        if differ and not overwrite:
            raise UserError(
                f"{folder}: holds a {kind.name} with another {', '.join(differ)}; name another folder with --output, "
                "or start again with --overwrite"
            )
        if overwrite:
            shutil.rmtree(folder / CELLS, ignore_errors=True)
            for name in kind.results:
                (folder / name).unlink(missing_ok=True)
        write_text(file, json.dumps(manifest, indent=1) + "\n")  # before all else: who is killed now, goes on here
        (folder / CELLS).mkdir(exist_ok=True)
        yield


def _read(file: Path, *, overwrite: bool) -> dict[str, Any]:
    """The manifest of a folder; a damaged one may be replaced."""
    try:
        found = read_json(file, named(anything), missing=f"{file}: missing", mend="start again with --overwrite")
    except UserError:
        if overwrite:
            return {}
        raise
    return dict(found)


def cell_file(folder: Path, cell: Cell, kind: str) -> Path:
    """A file of a cell: its `json`, `safetensors` or `log`."""
    return folder / CELLS / f"{cell.name}.{kind}"


def write_record(folder: Path, record: Record, arrays: Arrays | None = None, custom: str = "") -> None:
    """Writes the record of a cell, after the arrays that belong to it; `custom` as in `read_record`."""
    if arrays:
        with atomic_file(cell_file(folder, record.cell, "safetensors")) as fresh:
            save_file(arrays, fresh)
    write_text(
        cell_file(folder, record.cell, "json"),
        json.dumps({**dataclasses.asdict(record), "custom": custom}, indent=1) + "\n",
    )


def read_record(folder: Path, cell: Cell, custom: str = "") -> Record | None:
    """The record of a finished cell; None if it has not been trained, has failed, or ran other code.

    Args:
        folder: of the comparison.
        cell: the cell.
        custom: the digest of the user's own code that the cell runs.
    """
    file = cell_file(folder, cell, "json")
    try:
        kept = read_json(file, RECORD, missing="")
    except UserError as damaged:
        if file.exists():
            log.warning("%s; the cell is trained again", damaged)
        return None
    return Record(cell, Result(**kept["result"])) if kept["result"] and kept.get("custom", "") == custom else None


def read_arrays(folder: Path, cell: Cell) -> Arrays:
    """The predictions of a finished cell on the evaluated pairs, as `cells.train_cell` returns it."""
    file = cell_file(folder, cell, "safetensors")
    with reading_weights(file, f"remove {file.with_suffix('.json')}to train the cell again"):
        arrays: Arrays = load_file(file)
    return arrays


def read_verdict(folder: Path, cell: Cell) -> NDArray[np.bool_]:
    """(n,) The verdict of a finished cell on the evaluated pairs."""
    return read_arrays(folder, cell)["verdict"]


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Writes the tables and the chart."""
    write_table(folder / RESULTS, comparison.cells_frame())
    write_table(folder / SUMMARY, comparison.to_frame())
    panels: dict[str, dict[str, list[plots.Estimate]]] = {}
    several_miners = len({row.miner for row in comparison.rows}) > 1
    for row in comparison.rows:
        if row.results:
            label = f"{row.loss}, {row.miner}" if several_miners else row.loss
            panels.setdefault(row.encoder, {})[label] = [
                plots.Estimate(row.mean(measure), row.interval(measure), row.values(measure)) for measure in SCORES[:2]
            ]
    if panels:
        measures = ("F1", "average precision")
        plots.plot_estimates(panels, measures, folder / CHART, title=comparison.title, legend=LEGEND)
