"""Combines an encoder and a cross-encoder into a model of two stages, fitted on labelled pairs."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from qpairs import metrics
from qpairs.core.exceptions import UserError
from qpairs.core.files import hold_output
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import parts_of
from qpairs.data.sources import PairSource
from qpairs.data.splits import question_components
from qpairs.evaluation.baselines import tfidf_threshold
from qpairs.evaluation.calibrate import cross_fitted, cross_fitted_scores
from qpairs.evaluation.evaluate import report
from qpairs.evaluation.joint import Judged, fit_joint
from qpairs.evaluation.seen import seen_in_training, seen_note
from qpairs.evaluation.sources import pairs_if_given, warn_of_few, why_unjudged
from qpairs.metrics.second_look import NO_LOOK
from qpairs.models.base import RERANKER, Model, check_output, load
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.ready import READY
from qpairs.models.two_stages import TwoStages
from qpairs.models.versions import versions

log = logging.getLogger(__name__)


def combine(
    first: Model, second: CrossModel, pairs: Pairs, *, seed: int = 0, on_progress: OnProgress = ignore
) -> TwoStages:
    """Combines an encoder and a cross-encoder.

    What the second look adds is fitted on all pairs; threshold, calibration and operating points are fitted to scores
    of cross-fitting, where each pair is scored by a fit to pairs of other components, so that they are not optimistic.

    Args:
        first: an encoder with a verdict, trained or exported.
        second: a cross-encoder, likewise.
        pairs: labelled pairs that neither was trained on: the validation part.
        seed: of the folds, and of the bootstrap.
        on_progress: the stages encoding (questions), reading pairs, fitting the second look, evaluating both.

    Raises:
        UserError: the models do not fit together, or the pairs have only one label.

    >>> model = combine(encoder, cross_encoder, validation)  # doctest: +SKIP
    >>> model.scores["validation"]["f1_cross_fitted"]  # doctest: +SKIP
    0.812
    """
    need_both_labels(pairs, "combine")
    check_stages(first, second)
    labels, groups = pairs.labels, question_components(pairs)[pairs.left]
    scores, tables = first.score_pairs(pairs, on_progress=on_progress)
    unfitted = TwoStages(first, second, NO_LOOK, first.verdict)
    logits = unfitted.read(pairs, np.ones(len(pairs), dtype=np.bool_), on_progress)
    on_progress(Progress("fitting the second look"))
    judged = Judged(scores, logits, labels, groups)
    fitted = fit_joint(judged, first.verdict.pair, tfidf_threshold(pairs), seed=seed)
    both = fitted.scores
    model = TwoStages(first, second, fitted.look, fitted.verdict, versions=versions())
    on_progress(Progress("evaluating both"))
    on_validation = report(model, pairs, both, tables, seed=seed).to_dict(brief=True)
    on_validation |= cross_fitted_scores(both, labels, groups, seed)
    changed = {
        "band": list(model.band),
        "share": float(fitted.seen.mean()),
        "f1_first": metrics.confusion(cross_fitted(scores, labels, groups), labels, 0.5).f1,
        "f1_second": metrics.confusion(cross_fitted(logits, labels, groups), labels, 0.5).f1,
        "average_precision_first": metrics.average_precision(scores, labels),
        "average_precision_second": metrics.average_precision(logits, labels),
        "average_precision_everywhere": metrics.average_precision(fitted.everywhere, labels),
    }
    return dataclasses.replace(model, scores={"validation": on_validation, "second_look": changed})


def check_stages(first: Model, second: Model) -> None:
    """Raises UserError if an encoder and a cross-encoder cannot be combined."""
    if isinstance(first, CrossModel) and not isinstance(second, CrossModel):
        raise UserError(f"{first.path}: is a cross-encoder; name it second, and the encoder first")
    if isinstance(second, TwoStages):
        raise UserError(f"{second.path}: has two stages; its cross-encoder is {second.path / RERANKER}")
    if not isinstance(second, CrossModel):
        raise _no_cross_encoder(second.path)
    if isinstance(first, CrossModel | TwoStages):
        kind = "a cross-encoder" if isinstance(first, CrossModel) else "a model of two stages already"
        raise UserError(f"{first.path}: is {kind}; name an encoder first")
    if not first.verdict.symmetric:
        raise UserError(f"{first.path}: its sides are of different kinds, which a cross-encoder reads in both orders")


def _no_cross_encoder(name: object) -> UserError:
    return UserError(
        f"{name}: not a cross-encoder; train one with qpairs train --model cross-encoder, and name it second"
    )


def combine_folders(
    encoder: str | Path,
    cross_encoder: str | Path,
    output: str | Path,
    data: PairSource | None = None,
    *,
    overwrite: bool = False,
    seed: int = 0,
    on_progress: OnProgress = ignore,
) -> TwoStages:
    """Combines an encoder and a cross-encoder, fitted to labelled pairs, and writes the result.

    Args:
        encoder: folder of a checkpoint, or of an export.
        cross_encoder: folder of a cross-encoder: a checkpoint or an export.
        output: the new folder.
        data: labelled pairs that neither was trained on, or their source; without it, the validation pairs of the
            encoder.
        overwrite: whether a model in `output` may be replaced.
        seed: of the folds, and of the bootstrap.
        on_progress: the stages encoding (questions), reading pairs, fitting the second look, evaluating both.

    Raises:
        UserError: the models do not fit together; the pairs are unavailable, or have only one label; or the folder is
            not empty.

    >>> both = combine_folders("runs/encoder", "runs/cross-encoder", "runs/both")  # doctest: +SKIP
    >>> both.scores["second_look"]["share"]  # of the pairs that the cross-encoder reads  # doctest: +SKIP
    0.48
    """
    output = Path(output)
    if output.resolve() in (Path(encoder).resolve(), Path(cross_encoder).resolve()):
        raise UserError(f"{output}: is one of the models to combine; name another folder with --output")
    with hold_output(output):
        check_output(output, overwrite=overwrite)
        if str(cross_encoder) in READY:  # to load one measures how it scores, which takes minutes
            raise _no_cross_encoder(cross_encoder)
        first, second = load(encoder), load(cross_encoder)
        check_stages(first, second)
        assert isinstance(second, CrossModel)
        given = pairs_if_given(data)
        if given is not None:
            _warn_of_seen(first, second, given)
        pairs = _validation_pairs(first, second) if given is None else given
        warn_of_few(pairs, "combine")
        model = combine(first, second, pairs, seed=seed, on_progress=on_progress)
        model.save(output, overwrite=overwrite)
    found = load(output)
    assert isinstance(found, TwoStages)
    return found


def _warn_of_seen(first: Model, second: CrossModel, pairs: Pairs) -> None:
    for model in (first, second):
        seen = seen_in_training(model, pairs)
        if seen and seen.questions:
            log.warning("%s: %s", model.path, seen_note(seen.questions, seen.of_questions))


def _validation_pairs(first: Model, second: Model) -> Pairs:
    """The validation pairs of the encoder; warns if the cross-encoder may have been trained on them."""
    where = "name labelled pairs with --data"
    if why := why_unjudged(first):
        raise UserError(f"combine: {why}; {where}")
    try:
        parts = parts_of(first.config, first.split)
    except UserError as error:
        raise UserError(f"combine: the validation pairs of {first.path} are unavailable ({error}); {where}") from error
    if second.split.get("fingerprint") != first.split["fingerprint"]:
        log.warning("%s was not trained on the split of %s; it may have seen these pairs", second.path, first.path)
    return parts.validation
