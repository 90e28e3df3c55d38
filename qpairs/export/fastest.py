"""The export that is fastest on this machine, of those that lose little enough F1: found by measurement."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.sources import PairSource
from qpairs.evaluation.sources import pairs_if_given
from qpairs.export.export import MAX_LOSS, NEEDED, export_checkpoint, exportable, own_validation
from qpairs.export.parity import PairParity, Parity, StagesParity
from qpairs.models.base import Model, load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.exported import Export
from qpairs.models.graphs import FORMS

FASTEST = "fastest"
TRIED = 128  # pairs of each label that are scored for the time
ROUNDS = 3  # in which the forms take turns


@dataclass(frozen=True)
class Fastest:
    """What `export_fastest` chose.

    Attributes:
        format: of the export.
        rates: pairs per second, of all formats that were tried and of the `checkpoint`.
        parity: of the export with its checkpoint.

    >>> Fastest("onnx", {"checkpoint": 80.0, "onnx": 130.0}, Parity(838, 1.0, 1.0, 0.75, 0.75, 0.8, 0.8)).format
    'onnx'
    """

    format: str
    rates: Mapping[str, float]
    parity: Parity | PairParity | StagesParity


def export_fastest(
    path: str | Path,
    output: str | Path,
    *,
    data: PairSource | None = None,
    max_loss: float | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Fastest:
    """Exports a checkpoint in the format that is fastest on this machine, of those that lose little enough.

    Each format whose packages are installed is written and timed on some of the pairs, in turns; then the fastest one
    that passes the comparison on all of them is kept. Static vectors are not tried: they are a student model, and lose
    more.

    Args:
        path: as of `export_checkpoint`, like the others.
        output: folder of the export.
        data: labelled pairs, or their source, to compare on.
        max_loss: of F1.
        overwrite: whether what is in the output folder may be replaced.
        on_progress: gets the stage trying, and those of `export_checkpoint`.

    Raises:
        UserError: something that the user can fix, or every format loses too much.

    >>> export_fastest("runs/support", "runs/fast").format  # doctest: +SKIP
    'openvino-int8'
    """
    path, output = Path(path), Path(output)
    formats = [form for form in FORMS if all(map(importlib.util.find_spec, NEEDED[form]))]
    if not formats:
        raise UserError(f"format: fastest needs ONNX Runtime or OpenVINO: {install('onnxruntime')}")
    model, given = exportable(path, output, formats[0], overwrite=overwrite), pairs_if_given(data)
    pairs = own_validation(model) if given is None else given
    need_both_labels(pairs, "export")
    rates = _rates(path, model, formats, pairs, on_progress)
    refused = []
    for form in sorted(rates.keys() - {"checkpoint"}, key=lambda form: -rates[form]):
        try:
            parity = export_checkpoint(
                path,
                output,
                format=form,
                data=pairs,
                max_loss=MAX_LOSS[form] if max_loss is None else max_loss,
                overwrite=overwrite,
                on_progress=on_progress,
            )
            return Fastest(form, rates, parity)
        except UserError as error:
            refused.append(str(error))
    raise UserError(refused[-1])


def _rates(
    path: Path, checkpoint: Model, formats: list[str], pairs: Pairs, on_progress: OnProgress
) -> dict[str, float]:
    """Pairs per second of the checkpoint and of its exports: the best of some rounds in which they take turns."""
    rows = [np.flatnonzero(pairs.labels == label)[:TRIED] for label in (0, 1)]
    some, meter = pairs.subset(np.concatenate(rows)), Meter(on_progress)
    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, Model] = {"checkpoint": checkpoint}
        meter.begin("trying", len(formats))
        for form in formats:
            try:
                export_checkpoint(path, Path(folder, form), format=form, data=some, max_loss=1.0)
            except UserError:
                if form == formats[-1] and len(models) == 1:
                    raise
            else:
                models[form] = load(Path(folder, form))
            meter.advance(1)
        rates = dict.fromkeys(models, 0.0)
        for turn in range(1 + ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                model.encode(some.questions) if isinstance(model, Checkpoint | Export) else model.score_pairs(some)
                if turn:  # the first is slow
                    rates[name] = max(rates[name], len(some) / (time.perf_counter() - start))
    return rates
