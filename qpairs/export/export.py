"""A checkpoint -> a folder that answers without torch: ONNX graphs, or a table of word vectors.

An export is tried before it is kept: it embeds labelled pairs, gets a threshold and a calibration of its own, and is
refused where its F1 falls too far behind that of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.extras import install
from qpairs.core.files import atomic_folder
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import Parts, load_parts
from qpairs.encoders.readers import reader_of, save_tokenizer
from qpairs.encoders.tokens import prompt_of
from qpairs.encoders.towers import towers
from qpairs.encoders.words import mean_vectors
from qpairs.evaluation.baselines import tfidf_scores
from qpairs.evaluation.prefixes import prefix_verdicts
from qpairs.evaluation.question_table import table_densities
from qpairs.evaluation.sources import as_pairs
from qpairs.export.onnx import quantise, write_graph
from qpairs.export.static import Sides, f1_of, students
from qpairs.models.base import Floats, Tables, check_output
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, versions
from qpairs.models.exported import VECTORS, Export, open_towers, write_export
from qpairs.models.graphs import GRAPH
from qpairs.models.tokens import Reading, tokeniser
from qpairs.models.verdict import fit_verdict

FORMATS = {
    "onnx": "the encoder as it is, as an ONNX graph",
    "onnx-int8": "the same with its matrix products in 8 bits",
    "static": "a student of it: the mean of word vectors",
}
MAX_LOSS = {"onnx": 0.003, "onnx-int8": 0.003, "static": 0.1}  # of F1
ODD_TEXTS = (
    "",
    " ",
    "two  blanks ",
    "tab\tline\nend",
    "a " * 600,
    "C++/C#? don't! (U.S.A.)",
    "naïve ﬁ ½ 東京 🙂 e\u0301",
)


@dataclass(frozen=True)
class Parity:
    """How an export compares with its checkpoint on labelled pairs.

    Attributes:
        n: pairs.
        cosine_mean, cosine_min: between the vectors of a question by checkpoint and by export.
        f1_before, f1_after: of checkpoint and export, cross-fitted: half the pairs at the threshold of the others.
        threshold_before, threshold_after: the checkpoint's, and the export's own, which is chosen on these pairs.
    """

    n: int
    cosine_mean: float
    cosine_min: float
    f1_before: float
    f1_after: float
    threshold_before: float
    threshold_after: float


def export_checkpoint(
    path: str | Path,
    output: str | Path,
    *,
    format: str = "onnx-int8",
    data: Pairs | str | Path | Sequence[str | Path] = (),
    max_loss: float | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Parity:
    """Writes a checkpoint in a form that `qpairs.load` runs without torch.

    Args:
        path: folder of the checkpoint.
        output: folder of the export.
        format: one of `FORMATS`.
        data: labelled pairs, or their source, to compare on; without it, those that the checkpoint was validated on.
        max_loss: of F1, beyond which nothing is written; without it, that of `MAX_LOSS`.
        overwrite: whether what is in the output folder may be replaced.
        on_progress: gets the stages comparing, vocabulary, distilling, tuning and writing.

    Raises:
        UserError: something that the user can mend, or the export loses too much.

    >>> parity = export_checkpoint("runs/support", "runs/fast", format="static")  # doctest: +SKIP
    >>> parity.f1_before - parity.f1_after <= 0.1  # doctest: +SKIP
    True
    """
    path, output = Path(path), Path(output)
    checkpoint = _exportable(path, output, format, overwrite)
    sides = towers(checkpoint.encoder.eval())
    needs_student = format == "static" and any(mean_vectors(tower) is None for tower in sides)
    parts = _parts(checkpoint) if needs_student or not data else None
    pairs = parts.validation if parts and not data else as_pairs(data)
    need_both_labels(pairs, "export")
    on_progress(Progress("comparing"))
    before = checkpoint.score_pairs(pairs)
    if needs_student and parts:
        sides = students(sides, checkpoint.config, parts, on_progress)
    on_progress(Progress("writing"))
    with atomic_folder(output) as fresh:
        export = _write_towers(checkpoint, sides, fresh, format)
        export, parity = _compare(checkpoint, before, export, pairs)
        allowed = MAX_LOSS[format] if max_loss is None else max_loss
        if parity.f1_before - parity.f1_after > allowed:
            raise UserError(
                f"{format}: F1 falls from {parity.f1_before:.3f} to {parity.f1_after:.3f} on {len(pairs):,} pairs, by "
                f"more than {allowed:g}; nothing is written; choose another --format, or allow it with --max-loss"
            )
        write_export(export, fresh)
    return parity


def _exportable(path: Path, output: Path, format: str, overwrite: bool) -> Checkpoint:
    """The checkpoint in a folder, if it can be exported as asked."""
    if format not in FORMATS:
        raise UserError(f"format: unknown {format!r}; {nearest(format, FORMATS)}")
    if format != "static" and not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        raise UserError(f"format: {format} needs ONNX Runtime: {install('onnx')}")
    if output.resolve() == path.resolve():
        raise UserError(f"{output}: is the checkpoint itself; name another folder with --output")
    check_output(output, overwrite=overwrite)
    checkpoint = load_checkpoint(path)
    if checkpoint.head is not None:
        raise UserError(f"{path}: its verdict is that of a head, which an export lacks; train with --score cosine")
    return checkpoint


def _parts(checkpoint: Checkpoint) -> Parts:
    """The pairs that a checkpoint was trained and validated on."""
    try:
        parts = load_parts(checkpoint.config)
    except UserError as error:
        raise UserError(
            f"{error}; the checkpoint's own pairs are needed, unless others are named with --data"
        ) from None
    if parts.split["fingerprint"] != checkpoint.split["fingerprint"]:
        raise UserError(
            "export: the pairs that the checkpoint was trained on have changed since, so that its validation part is "
            "no longer known; name labelled pairs with --data"
        )
    return parts


def _write_towers(checkpoint: Checkpoint, sides: Sides, folder: Path, format: str) -> Export:
    """Writes one tower into the folder, or two into folders in it; the verdict is still that of the checkpoint."""
    left, right = sides
    write = _write_vectors if format == "static" else _write_graph
    readings = {}
    for name, tower in ({"": left} if left is right else {"left": left, "right": right}).items():
        (folder / name).mkdir(exist_ok=True)
        readings[name] = asdict(write(tower, folder / name))
    if format == "onnx-int8" and not sum(quantise(graph) for graph in folder.rglob(GRAPH)):
        raise UserError("onnx-int8: the encoder has no matrix products to quantise; choose --format onnx or static")
    form = {
        "kind": format,
        "dimension": checkpoint.dimension,
        "towers": readings,
        "source": checkpoint.fingerprint,
    }
    return Export(
        open_towers(folder, form),
        checkpoint.verdict,
        checkpoint.config,
        form,
        checkpoint.split,
        history=checkpoint.history,
        versions=versions(),
        path=folder,
    )


def _write_graph(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes the graph and the tokenizer of a tower."""
    write_graph(tower, folder)
    return _write_tokenizer(tower, folder)


def _write_vectors(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes the vectors and the tokenizer of a tower that is the normalised mean of vectors."""
    vectors: Any = mean_vectors(tower)
    save_file({"vectors": vectors}, folder / VECTORS)
    reading = _write_tokenizer(tower, folder)
    by_word = dataclasses.replace(reading, by_word=True)
    whole, parts = (tokeniser(folder, how)(ODD_TEXTS) for how in (reading, by_word))
    same = np.array_equal(whole.bounds, parts.bounds) and np.array_equal(whole.ids, parts.ids)
    return by_word if same else reading


def _write_tokenizer(tower: SentenceTransformer, folder: Path) -> Reading:
    """Writes what `tokens.tokeniser` needs to give the same ids as `encoders.tokens.token_ids`."""
    reader = reader_of(tower)
    save_tokenizer(tower, folder)
    return Reading(prompt_of(tower), reader.special_tokens, reader.longest, pad=reader.pad, pad_left=reader.pad_left)


def _compare(
    checkpoint: Checkpoint, before: tuple[Floats, Tables], export: Export, pairs: Pairs
) -> tuple[Export, Parity]:
    """The export with a verdict of its own, and how it compares with its checkpoint.

    Args:
        checkpoint: what was exported.
        before: its scores of the pairs, and its vectors of their questions.
        export: with any verdict.
        pairs: labelled.
    """
    old_scores, old_tables = before
    scores, tables = export.score_pairs(pairs)
    tfidf = metrics.best_threshold(tfidf_scores(pairs), pairs.labels)
    symmetric = checkpoint.verdict.symmetric
    densities = table_densities(pairs, tables, symmetric=symmetric, seed=checkpoint.config.seed)
    verdict = fit_verdict(scores, pairs.labels, tfidf, symmetric=symmetric, densities=densities)
    lengths, seed = checkpoint.verdict.shortened, checkpoint.config.seed
    verdict = dataclasses.replace(verdict, shortened=prefix_verdicts(lengths, pairs, tables, verdict, seed=seed))
    cosines = np.clip([(old * new).sum(axis=1) for old, new in zip(old_tables, tables, strict=True)], -1, 1)
    parity = Parity(
        n=len(pairs),
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        f1_before=f1_of(old_scores, pairs),
        f1_after=f1_of(scores, pairs),
        threshold_before=checkpoint.verdict.pair.threshold,
        threshold_after=verdict.pair.threshold,
    )
    form = {**export.form, "parity": asdict(parity)}
    return dataclasses.replace(export, verdict=verdict, form=form), parity
