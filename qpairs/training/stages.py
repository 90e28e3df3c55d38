"""The stages of a run: its teachers, its encoder and its reranker: trained, evaluated and combined."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import CrossEncoder, SentenceTransformer

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Progress
from qpairs.data.parts import Parts
from qpairs.encoders.build import is_pretrained
from qpairs.evaluation.baselines import UNTRAINED
from qpairs.evaluation.combine import combine
from qpairs.evaluation.seen import encoder_checkpoints, seen_by_encoder, seen_note
from qpairs.models.base import LOOK, RERANKER, Model, load
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.objectives.objective import Objective, Term
from qpairs.training.bi_encoder import Fitted, fit_bi_encoder, new_encoder
from qpairs.training.cross_encoder import cross_encoder_of
from qpairs.training.cross_models import cross_config, passes_for, trained_cross_model, warn_of_another_split
from qpairs.training.distributed import rank
from qpairs.training.guides import Guides
from qpairs.training.judge import beside_untrained, judge, judge_without_labels, report_on_part, untrained_scores
from qpairs.training.names import ITSELF
from qpairs.training.passes import NothingKept
from qpairs.training.run import Run
from qpairs.training.teacher_vectors import taught_vectors
from qpairs.training.teachers import Teacher, ask_teachers, keep_teacher
from qpairs.training.trainer import complete_states

log = logging.getLogger(__name__)

FIRST = "first-pass"  # in the folder of an unfinished run: the checkpoint of an encoder that is its own teacher
ENCODER = "trained-encoder"  # likewise: the checkpoint of an encoder that gets a reranker
SECOND_RATE = 0.4  # factor on an encoder's learning rates in its second pass


@dataclass(frozen=True)
class Trained:
    """What a run has trained.

    Attributes:
        model: evaluated, in process 0; None in the other processes.
        warning: a warning for the user although a model is saved; else ''.
    """

    model: Model | None
    warning: str = ""


def work_of(run: Run, guides: Guides | None) -> Callable[[], Trained]:
    """The function that trains a run; the model is built now, so that errors in its options are reported at once."""
    train = run.parts.train
    if rank() == 0:
        _warn_of_checkpoint(run)
    if guides is None:
        return functools.partial(_train_cross_encoder, run, cross_encoder_of(run.config, train))
    return functools.partial(_train_encoder, run, new_encoder(run.config, train), guides)


def _warn_of_checkpoint(run: Run) -> None:
    """Warns which of a run's questions a checkpoint used as encoder has seen, and what is left out of it."""
    folders = encoder_checkpoints(run.config.encoder)
    for folder in folders:
        if (folder / LOOK).exists():
            log.warning(
                "encoder: %s has a second look, which is left out; use it with --reranker %s", folder, folder / RERANKER
            )
        elif isinstance(load(folder), CrossModel):
            log.warning("encoder: %s is a cross-encoder; its transformer is used, but not its head", folder)
    for name, pairs in (("validation", run.parts.validation), ("test", run.parts.test)):
        seen = seen_by_encoder(run.config, pairs) if pairs and folders else None
        if seen and seen.questions:
            note = seen_note(seen.questions, seen.of_questions)
            log.warning("encoder: %s was trained on questions of the %s part: %s", run.config.encoder, name, note)


def save_trained(model: Model, output: Path, *, overwrite: bool) -> Model:
    """Writes a trained model into its folder; returns the saved model."""
    model.save(output, overwrite=overwrite)
    return dataclasses.replace(model, path=output) if isinstance(model, Checkpoint) else load(output)


def _train_cross_encoder(run: Run, network: CrossEncoder) -> Trained:
    """Trains and evaluates the cross-encoder of a run."""
    try:
        model, diverged = trained_cross_model(run, network)
    except NothingKept:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return Trained(model if rank() == 0 else None, _last_state(diverged, run.config))


def _last_state(diverged: str, config: Config) -> str:
    """The warning about a loss that became NaN after a state was kept; '' if it did not."""
    return diverged and f"{diverged}; the last good state is saved in {config.output}; lower --learning-rate"


def _train_encoder(run: Run, encoder: SentenceTransformer, guides: Guides) -> Trained:
    """Trains and evaluates the encoder of a run, after its teachers, and combines it with its reranker, if any."""
    kept = run.folder / ENCODER
    if not kept.exists():
        untrained = _untrained_scores(run, encoder)
        parts, fitted = _fit(run, encoder, guides)
        if rank() > 0:
            return Trained(None, _last_state(fitted.diverged, run.config))
        run.on_progress(Progress("evaluating"))
        if run.config.without_labels:
            checkpoint = judge_without_labels(fitted.encoder, run.config, parts, fitted.history)
        else:
            checkpoint = judge(fitted.encoder, run.config, parts, fitted.history, fitted.head)
            checkpoint = beside_untrained(checkpoint, untrained)
        if not run.config.reranker or fitted.diverged:
            keep_teacher(run)
            return Trained(checkpoint, _last_state(fitted.diverged, run.config))
        save_checkpoint(checkpoint, kept)
        for state in complete_states(run.folder):
            shutil.rmtree(state)
    keep_teacher(run)
    return _with_reranker(run, load_checkpoint(kept), guides.reranker)


def _untrained_scores(run: Run, encoder: SentenceTransformer) -> dict[str, dict[str, float]]:
    """The scores before training, by part; none if the encoder is not pretrained, or there are no labels."""
    config = run.config
    known = is_pretrained(config.encoder, config.vectors) and not config.project
    if not known or config.without_labels or rank() > 0:
        return {}
    run.on_progress(Progress(f"evaluating the {UNTRAINED}"))
    found = untrained_scores(encoder, config, run.parts)
    run.on_progress(Progress("preparing"))
    return found


def _with_reranker(run: Run, encoder: Checkpoint, reranker: CrossModel | None) -> Trained:
    """The encoder of a run and its reranker, which is trained if needed, as one model.

    If the loss of the reranker becomes NaN, only the encoder.
    """
    config = run.config
    if reranker is None:
        shared = (
            config.teacher_epochs
            if config.reranker in config.probability_teachers
            else passes_for(len(run.parts.train))
        )
        own = cross_config(config, config.reranker, config.reranker_epochs or shared)
        own = dataclasses.replace(own, output=str(Path(config.output) / RERANKER))
        work, diverged = dataclasses.replace(run, config=own), "at once"
        with contextlib.suppress(NothingKept):
            reranker, diverged = trained_cross_model(work, stage="training the reranker")
        if diverged or reranker is None:
            return Trained(
                encoder,
                f"reranker: its loss became NaN; the encoder alone is saved in {config.output}; train a reranker with "
                "another --seed, and combine them with qpairs combine",
            )
    elif reranker.split.get("fingerprint") != run.parts.split["fingerprint"]:
        warn_of_another_split(f"reranker: {config.reranker}")
    model = combine(encoder, reranker, run.parts.validation, seed=config.seed, on_progress=run.on_progress)
    if run.parts.test is not None:
        run.on_progress(Progress("evaluating"))
        on_test = report_on_part(model, run.parts.test, model.score_pairs(run.parts.test))
        model = dataclasses.replace(model, scores={**model.scores, "test": on_test})
    return Trained(model)


def _fit(run: Run, encoder: SentenceTransformer, guides: Guides) -> tuple[Parts, Fitted]:
    """Trains the encoder of a run, after its teachers; returns the parts with the teachers' answers, too."""
    objective, teachers, schedule, rate_factor = guides.objective, guides.teachers, run.config, 1.0
    if ITSELF in run.config.probability_teachers:
        first = _first_pass(run, objective)
        encoder.load_state_dict(first.encoder.state_dict())
        teachers = {**teachers, ITSELF: Teacher(first, run.config.encoder, run.parts.split["fingerprint"])}
        objective, rate_factor = second_objective(first, objective), SECOND_RATE
        schedule = _in_turn(run.config, run.config.second_epochs)
    if run.config.probability_teachers:
        run = dataclasses.replace(run, parts=ask_teachers(run, teachers, encoder))
    second = dataclasses.replace(run, config=schedule)
    vectors = guides.vectors and taught_vectors(run, guides.vectors, encoder.get_embedding_dimension() or 0)
    return run.parts, fit_bi_encoder(second, encoder, objective, rate_factor=rate_factor, taught=vectors)


def _first_pass(run: Run, objective: Objective) -> Checkpoint:
    """The encoder of a run that is its own teacher, trained on the labels alone, or resumed, or loaded."""
    output, states = run.folder / FIRST, run.folder / "first"
    if not output.exists():
        config = _in_turn(run.config, run.config.epochs)
        config = dataclasses.replace(config, teacher=(), reranker="", output=str(output))
        first = dataclasses.replace(run, config=config, folder=states)
        try:
            encoder = new_encoder(config, run.parts.train)
            fitted = fit_bi_encoder(first, encoder, objective, "first pass")
            if fitted.diverged:
                raise UserError(f"teacher: {fitted.diverged}; nothing was saved; lower --learning-rate")
        except UserError:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise
        save_checkpoint(judge(fitted.encoder, config, run.parts, fitted.history, fitted.head), output)
        shutil.rmtree(states)
    return load_checkpoint(output)


def _in_turn(config: Config, epochs: float) -> Config:
    """The config of one of the two passes of an encoder that is its own teacher; epochs divide the time."""
    share = epochs / (config.epochs + config.second_epochs)
    return dataclasses.replace(config, epochs=epochs, budget_minutes=config.budget_minutes * share)


def second_objective(first: Checkpoint, objective: Objective) -> Objective:
    """The loss of an encoder's second pass: the cross-entropy between its teachers' probabilities and its own.

    Its own are those that the calibration of its first pass gives for its cosines, so that the second pass starts
    where the encoder agrees with itself. The loss of a head is that already; and an encoder whose calibration does not
    rise with the cosine has no useful probabilities. Both keep their loss.
    """
    calibration = first.verdict.pair.calibration
    slope, intercept = calibration.slope, calibration.intercept
    if first.head is not None or slope <= 0:
        return objective
    logistic = Term("logistic", parameters={"scale": slope, "threshold": -intercept / slope})
    return dataclasses.replace(objective, terms=(logistic,))
