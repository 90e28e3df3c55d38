"""Exports of cross-encoders, and of models of two stages: an ONNX graph for each, and a verdict of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sentence_transformers import CrossEncoder

from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.evaluation.baselines import tfidf_threshold
from qpairs.evaluation.combine import combine
from qpairs.export.pair_graph import compare_readers, write_pair_graph
from qpairs.export.parity import PairParity, Parity, StagesParity
from qpairs.models.base import RERANKER, Model
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.pair_graph import open_pair_graph
from qpairs.models.torch_pairs import TorchPairs
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import fit_verdict
from qpairs.models.versions import versions


def export_cross_encoder(model: CrossModel, folder: Path, format: str, pairs: Pairs) -> tuple[CrossModel, PairParity]:
    """Writes a cross-encoder as a graph into a folder, with a verdict fitted to its own logits.

    Args:
        model: trained, not exported.
        folder: an existing, empty one.
        format: one of `models.graphs.FORMS`.
        pairs: labelled pairs.

    Raises:
        UserError: an export already, or a format without a graph.
    """
    network = _network(model, format)
    reading = write_pair_graph(network, folder, format)
    reader = open_pair_graph(folder, reading, format)
    parity = compare_readers(model.reader, reader, pairs)
    form = {
        "kind": f"cross-encoder-{format}",
        "reading": asdict(reading),
        "source": model.fingerprint,
        "parity": asdict(parity),
    }
    export = dataclasses.replace(model, reader=reader, form=form, versions=versions(), path=folder)
    logits, _ = export.score_pairs(pairs)
    export = dataclasses.replace(
        export, verdict=fit_verdict(logits, pairs.labels, tfidf_threshold(pairs), score="logit")
    )
    write_cross_model(export, folder)
    return export, parity


def _network(model: CrossModel, format: str) -> CrossEncoder:
    """What is to be written as a graph."""
    if not isinstance(model.reader, TorchPairs):
        raise UserError(f"{model.path}: an export ({model.form['kind']}); name the checkpoint that it was made from")
    if format == "static":
        raise UserError(
            "format: static is a table of word vectors, and a cross-encoder is no such table; use onnx-int8 or onnx"
        )
    return model.reader.cross_encoder


def export_two_stages(
    model: TwoStages,
    folder: Path,
    format: str,
    pairs: Pairs,
    write_first: Callable[[Model, Path], tuple[Model, Parity]],
) -> StagesParity:
    """Writes both models of two stages as graphs into a folder; what they mean together is fitted again.

    Args:
        model: of two checkpoints.
        folder: an existing, empty one.
        format: one of `models.graphs.FORMS`.
        pairs: labelled pairs.
        write_first: exports an encoder into a folder.

    Raises:
        UserError: a part cannot be exported.
    """
    _network(model.second, format)  # what cannot be exported is refused before the work on the encoder
    first, of_first = write_first(model.first, folder)
    (folder / RERANKER).mkdir()
    second, of_second = export_cross_encoder(model.second, folder / RERANKER, format, pairs)
    before = combine(model.first, model.second, pairs, seed=model.config.seed)
    export = combine(first, second, pairs, seed=model.config.seed)
    export.write_look(folder)
    return StagesParity(
        n=len(pairs),
        first=of_first,
        second=of_second,
        f1_before=before.scores["validation"]["f1_cross_fitted"],
        f1_after=export.scores["validation"]["f1_cross_fitted"],
        threshold_before=model.verdict.pair.threshold,
        threshold_after=export.verdict.pair.threshold,
    )
