"""A checkpoint -> a folder that runs without torch: ONNX graphs, or a table of word vectors.

An export is tested before it is kept: it embeds labelled pairs, gets its own threshold and calibration, and is refused
if its F1 is too far below that of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.extras import install
from qpairs.core.files import atomic_folder, hold_output
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import Parts, load_parts
from qpairs.data.sources import PairSource
from qpairs.encoders.readers import reader_of, save_tokenizer
from qpairs.encoders.tokens import prompt_of
from qpairs.encoders.towers import towers
from qpairs.encoders.words import mean_vectors
from qpairs.evaluation.baselines import tfidf_scores
from qpairs.evaluation.prefixes import prefix_verdicts
from qpairs.evaluation.question_table import table_densities
from qpairs.evaluation.sources import pairs_if_given, why_unjudged
from qpairs.export.onnx import has_lstm, quantise, write_graph
from qpairs.export.parity import PairParity, Parity, StagesParity
from qpairs.export.stages import export_cross_encoder, export_two_stages
from qpairs.export.static import Sides, f1_of, students
from qpairs.models.base import Floats, Model, Tables, check_output, load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.exported import VECTORS, Export, open_towers, write_export
from qpairs.models.graphs import FORMS, GRAPH
from qpairs.models.ready import shown_name
from qpairs.models.tokens import Reading, tokeniser
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import fit_verdict
from qpairs.models.versions import versions

FORMATS = {
    "onnx": "the encoder in full precision, as an ONNX graph",
    "onnx-int8": "the same with its matrix products in 8 bits",
    "openvino": "the encoder, run by OpenVINO, in bfloat16 if the machine is faster at that",
    "openvino-int8": "the same with its matrix products in 8 bits",
    "static": "a student: the mean of word vectors",
}
MAX_LOSS = {**dict.fromkeys(FORMS, 0.003), "static": 0.1}  # of F1
NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("onnx", "onnx-int8"), ("onnx", "onnxruntime")),
    **dict.fromkeys(("openvino", "openvino-int8"), ("onnx", "openvino")),
    "static": (),
}  # packages
ODD_TEXTS = (
    "",
    " ",
    "two  blanks ",
    "tab\tline\nend",
    "a " * 600,
    "C++/C#? don't! (U.S.A.)",
    "naïve ﬁ ½ 東京 🙂 e\u0301",
)


def export_checkpoint(
    path: str | Path,
    output: str | Path,
    *,
    format: str = "onnx-int8",
    data: PairSource | None = None,
    max_loss: float | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Parity | PairParity | StagesParity:
    """Writes a checkpoint in a form that `qpairs.load` runs without torch.

    Args:
        path: folder of the checkpoint: an encoder, a cross-encoder, or both as a model of two stages.
        output: folder of the export.
        format: one of `FORMATS`.
        data: labelled pairs, or their source, to compare on; without it, those that the checkpoint was validated on.
        max_loss: of F1, above which nothing is written; without it, that of `MAX_LOSS`.
        overwrite: whether what is in the output folder may be replaced.
        on_progress: gets the stages comparing, vocabulary, distilling, tuning and writing.

    Raises:
        UserError: something that the user can fix, or the export loses too much.

    >>> parity = export_checkpoint("runs/support", "runs/fast", format="static")  # doctest: +SKIP
    >>> parity.f1_before - parity.f1_after <= 0.1  # doctest: +SKIP
    True
    """
    path, output = Path(path), Path(output)
    allowed = MAX_LOSS.get(format, 0.0) if max_loss is None else max_loss
    with hold_output(output), atomic_folder(output) as fresh:
        model, given = exportable(path, output, format, overwrite=overwrite), pairs_if_given(data)
        parity = _write(model, fresh, format, given, on_progress)
        if parity.f1_before - parity.f1_after > allowed:
            raise UserError(
                f"{format}: F1 falls from {parity.f1_before:.3f} to {parity.f1_after:.3f} on {parity.n:,} pairs, by "
                f"more than {allowed:g}; nothing is written; choose another --format, or allow it with --max-loss"
            )
    return parity


def _write(
    model: Checkpoint | CrossModel | TwoStages,
    folder: Path,
    format: str,
    given: Pairs | None,
    on_progress: OnProgress,
) -> Parity | PairParity | StagesParity:
    """Writes a model into a folder, whatever it loses, and says how it compares."""
    if isinstance(model, Checkpoint):
        return _write_encoder(model, folder, format, given, on_progress)[1]
    pairs = own_validation(model) if given is None else given
    if isinstance(model, CrossModel):
        return export_cross_encoder(model, folder, format, pairs)[1]

    def write_first(first: Model, where: Path) -> tuple[Export, Parity]:
        encoder = _exportable_encoder(first)
        of_words = all(mean_vectors(tower) is not None for tower in towers(encoder.encoder))  # a table says it exactly
        return _write_encoder(encoder, where, "static" if of_words else format, pairs, on_progress)

    return export_two_stages(model, folder, format, pairs, write_first)


def _write_encoder(
    checkpoint: Checkpoint,
    folder: Path,
    format: str,
    given: Pairs | None,
    on_progress: OnProgress,
) -> tuple[Export, Parity]:
    """Writes an encoder into a folder; a student of it for the format static."""
    sides = towers(checkpoint.encoder.eval())
    needs_student = format == "static" and any(mean_vectors(tower) is None for tower in sides)
    pairs = own_validation(checkpoint) if given is None else given
    parts = own_parts(checkpoint) if needs_student else None
    need_both_labels(pairs, "export")
    on_progress(Progress("comparing"))
    before = checkpoint.score_pairs(pairs)
    if needs_student and parts:
        sides = students(sides, checkpoint.config, parts, on_progress)
    on_progress(Progress("writing"))
    export, parity = _compare(checkpoint, before, _write_towers(checkpoint, sides, folder, format), pairs)
    write_export(export, folder)
    return export, parity


def exportable(path: Path, output: Path, format: str, *, overwrite: bool) -> Checkpoint | CrossModel | TwoStages:
    """The model in a folder, if it can be exported as asked.

    Raises:
        UserError: it cannot.

    >>> exportable(Path("runs/support"), Path("runs/fast"), "onnx", overwrite=False).dimension  # doctest: +SKIP
    384
    """
    if format not in FORMATS:
        raise UserError(f"format: unknown {format!r}; {nearest(format, FORMATS)}")
    missing = [package for package in NEEDED[format] if not importlib.util.find_spec(package)]
    if missing:
        raise UserError(f"format: {format} needs {missing[0]}: {install(missing[0])}")
    if output.resolve() == path.resolve():
        raise UserError(f"{output}: is the checkpoint itself; name another folder with --output")
    check_output(output, overwrite=overwrite)
    model = load(path)
    return model if isinstance(model, CrossModel | TwoStages) else _exportable_encoder(model)


def _exportable_encoder(model: Model) -> Checkpoint:
    """The checkpoint of an encoder, if it is one and its verdict reads cosines."""
    if not isinstance(model, Checkpoint):
        kind = model.form["kind"] if isinstance(model, Export) else "no checkpoint"
        raise UserError(f"{model.path}: an export ({kind}); name the checkpoint that it was made from")
    if model.head is not None:
        raise UserError(
            f"{model.path}: its verdict needs a head, which an export does not have; train with --score cosine"
        )
    return model


def own_validation(model: Model) -> Pairs:
    """The labelled pairs that a model was validated on.

    Raises:
        UserError: there are none, or they are not there any more, or have changed.

    >>> own_validation(qpairs.load("runs/support"))  # doctest: +SKIP
    """
    if why := why_unjudged(model):
        raise UserError(f"export: {why}; name labelled pairs to compare on with --data")
    return own_parts(model).validation


def own_parts(checkpoint: Model) -> Parts:
    """The pairs that a model was trained and validated on.

    Raises:
        UserError: they are not there, or have changed.

    >>> own_parts(qpairs.load("runs/support")).train  # doctest: +SKIP
    """
    if not checkpoint.split:
        raise UserError(
            f"format: a student learns from the training pairs of a model, and {shown_name(checkpoint)} has none; "
            "choose another --format"
        )
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
    if format.startswith("openvino") and any(map(has_lstm, folder.rglob(GRAPH))):
        raise UserError(f"{format}: OpenVINO runs an LSTM inexactly; choose --format onnx, onnx-int8 or static")
    if format.endswith("int8") and not sum(quantise(graph, format) for graph in folder.rglob(GRAPH)):
        raise UserError(f"{format}: the encoder has no matrix products to quantise; choose --format onnx or static")
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
    """The export with its own verdict, and how it compares with its checkpoint.

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
    if not checkpoint.verdict.labelled:  # what is known of a ready model stays as little as it is
        verdict = dataclasses.replace(verdict, densities=checkpoint.verdict.densities, labelled=False)
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
