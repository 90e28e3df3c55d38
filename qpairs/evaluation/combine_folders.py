"""Joins the encoder and the cross-encoder of two folders, and writes the model of two stages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.parts import parts_of
from qpairs.evaluation.combine import check_stages, combine
from qpairs.evaluation.sources import as_pairs
from qpairs.models.base import Model, check_output, load
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import TwoStages

log = logging.getLogger(__name__)


def combine_folders(
    encoder: str | Path,
    cross_encoder: str | Path,
    output: str | Path,
    data: Pairs | str | Path | Sequence[str | Path] = (),
    *,
    overwrite: bool = False,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> TwoStages:
    """Joins an encoder and a cross-encoder, fitted to labelled pairs, and writes the result.

    Args:
        encoder: folder of a checkpoint, or of an export.
        cross_encoder: folder of a cross-encoder, likewise.
        output: the new folder.
        data: labelled pairs that neither was trained on, or their source; without it, the validation pairs of the
            encoder.
        overwrite: whether a model in `output` may be replaced.
        seed: of the folds, and of the bootstrap.
        on_progress: called while the cross-encoder reads the pairs.

    Raises:
        UserError: the models do not go together; the pairs are unavailable, or have one label only; or the folder is
            in use.

    >>> both = combine_folders("runs/encoder", "runs/cross-encoder", "runs/both")  # doctest: +SKIP
    >>> both.scores["second_look"]["share"]  # of the pairs that the cross-encoder reads  # doctest: +SKIP
    0.48
    """
    output = Path(output)
    if output.resolve() in (Path(encoder).resolve(), Path(cross_encoder).resolve()):
        raise UserError(f"{output}: is one of the models to join; name another folder with --output")
    check_output(output, overwrite=overwrite)
    first, second = load(encoder), load(cross_encoder)
    check_stages(first, second)
    assert isinstance(second, CrossModel)
    given = as_pairs(data) if isinstance(data, Pairs | str | Path) or len(data) else None
    pairs = _validation_pairs(first, second) if given is None else given
    model = combine(first, second, pairs, seed=seed, on_progress=on_progress)
    model.save(output, overwrite=overwrite)
    found = load(output)
    assert isinstance(found, TwoStages)
    return found


def _validation_pairs(first: Model, second: Model) -> Pairs:
    """The validation pairs of the encoder; a warning where the cross-encoder may have been trained on them."""
    where = "name labelled pairs with --data"
    if not first.split:
        raise UserError(f"combine: {first.path} does not say which pairs it was validated on; {where}")
    try:
        parts = parts_of(first.config, first.split)
    except UserError as error:
        raise UserError(f"combine: the validation pairs of {first.path} are unavailable ({error}); {where}") from error
    if second.split.get("fingerprint") != first.split["fingerprint"]:
        log.warning("%s was not trained on the split of %s; it may have seen these pairs", second.path, first.path)
    return parts.validation
