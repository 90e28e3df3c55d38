"""A training run, from the config to the saved model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from sentence_transformers import CrossEncoder, SentenceTransformer

from qpairs.config import CROSS_ENCODER, NEED_LABELS, OPTIONS, WITHOUT_LABELS, Config, to_dict, with_defaults
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, has_positives_alone, load_parts, separate_pairs
from qpairs.encoders.build import tower_names
from qpairs.evaluation.combine import combine
from qpairs.models.base import RERANKER, Model, load
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.unfinished import partial_of
from qpairs.objectives.functions import Function, objective_of, separate_functions
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.matryoshka import require_prefixes
from qpairs.objectives.objective import Objective, Term
from qpairs.objectives.plugins import register_custom
from qpairs.objectives.queue import require_in_batch
from qpairs.training.bi_encoder import Fitted, fit_bi_encoder, new_encoder
from qpairs.training.cross_encoder import cross_encoder_of
from qpairs.training.cross_models import (
    check_cross_encoder,
    cross_config,
    load_reranker,
    passes_for,
    trained_cross_model,
    warn_of_another_split,
)
from qpairs.training.distributed import check_once, initialize, rank, world
from qpairs.training.judge import judge, judge_without_labels, report_on_part
from qpairs.training.options import TrainOptions, shows_options
from qpairs.training.passes import NothingKept
from qpairs.training.run import Run, check_run, open_run, run_config, saved_before
from qpairs.training.teacher_vectors import Embed, taught_vectors, vector_teacher
from qpairs.training.teachers import ITSELF, Teacher, ask_teachers, keep_teacher, load_teachers, teachers_to_train
from qpairs.training.trainer import complete_states

log = logging.getLogger(__name__)

FIRST = "first-pass"  # in the folder of an unfinished run: the checkpoint of an encoder that is its own teacher
ENCODER = "trained-encoder"  # likewise: the checkpoint of an encoder that gets a reranker
SECOND_RATE = 0.4  # factor on an encoder's learning rates in its second pass


@dataclass(frozen=True)
class Trained:
    """What a run has trained.

    Attributes:
        model: judged, in process 0; None in the other processes.
        warning: what the user must be told although a model is saved; else ''.
    """

    model: Model | None
    warning: str = ""


@dataclass(frozen=True)
class Guides:
    """What an encoder is trained towards, besides its data.

    Attributes:
        objective: the loss.
        teachers: those that are there already, by name.
        reranker: the cross-encoder that is to be joined to it, where that is there already.
        vectors: from questions to the vectors that are to be learned; None where none are.
    """

    objective: Objective
    teachers: Mapping[str, Teacher]
    reranker: CrossModel | None
    vectors: Embed | None = None


@shows_options
def train(
    config: Config | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    parts: Parts | None = None,
    **options: Unpack[TrainOptions],
) -> Model:
    """Trains a model on question pairs, chooses the threshold on validation, judges it on the test part, and saves.

    The model is an encoder (a `Checkpoint`); with `model="cross-encoder"` a `CrossModel`; with a `reranker`, an encoder
    and a cross-encoder that judge together (`TwoStages`).

    States are kept in OUTPUT.partial until the model is complete in OUTPUT. A killed run resumes from the last of them
    and ends, on a CPU, with the same weights as an unbroken one.

    Args:
        config: the choices of the run; None: the defaults.
        resume: go on with the interrupted run of `output`; its config is kept, and need not be given again.
        overwrite: replace the model, and the unfinished run, of `output`.
        on_progress: called at every step.
        parts: the data, where it is loaded already; None: that of the config.
        options: fields of `Config`, over those of `config`. `loss` may also be a function (sim, Relation) -> scalar,
            and `miner` a function (sim, Relation) -> Relation, see `objectives.functions.objective_of`. The config
            stores their names; to resume such a run, pass them again. `data`, `validation`, `test` and
            `drop_suspects` may also be rows in memory, as in `load_pairs`: the same holds for them.

    Raises:
        UserError: something that the user can mend; or the loss became NaN, and the last good state was saved.

    >>> model = train(data="mine.csv", encoder="minilm", epochs=2)  # doctest: +SKIP
    >>> model.scores["test"]["f1_interval"]  # doctest: +SKIP
    (0.71, 0.77)
    """
    initialize()
    asked = _asked(config, options)
    if resume and (saved := saved_before(run_config(asked.given, resume=True))) is not None:
        return load(saved)
    plan = _plan(asked, resume=resume, overwrite=overwrite, parts=parts)
    config, parts, guides, output = plan.config, plan.parts, plan.guides, Path(plan.config.output)
    run = Run(config, parts, partial_of(output), on_progress if rank() == 0 else ignore)
    work, model = _work(run, guides), None
    with open_run(run, resume=resume):
        trained = work()
        if trained.model is not None:
            model = save_trained(trained.model, output, overwrite=overwrite)
    if trained.warning:
        raise UserError(trained.warning)
    return model or load(output)


@dataclass(frozen=True)
class Plan:
    """What a run will do: its options, its data, and what its encoder is trained towards; nothing is written yet.

    Attributes:
        config: with its output folder.
        parts: the data.
        guides: None where a cross-encoder is trained.
    """

    config: Config
    parts: Parts
    guides: Guides | None


@dataclass(frozen=True)
class _Asked:
    """The options of a run; rows in memory are read, which an iterator gives once only."""

    given: Mapping[str, Any]
    pairs: Mapping[str, Pairs]
    functions: Mapping[str, Function]


def _asked(config: Config | None, options: Mapping[str, Any]) -> _Asked:
    values, functions = separate_functions(options)
    return _Asked(*separate_pairs({**(to_dict(config) if config else {}), **values}), functions)


def plan_run(config: Config | None, options: Mapping[str, Any], *, overwrite: bool = False) -> Plan:
    """Reads the options of a run, checks them and loads its data; the arguments are those of `train`.

    Raises:
        UserError: something that the user can mend.

    >>> plan_run(None, {"data": "mine.csv", "encoder": "static"}).config.output  # doctest: +SKIP
    'runs/mine-static'
    """
    return _plan(_asked(config, options), resume=False, overwrite=overwrite, parts=None)


def _plan(asked: _Asked, *, resume: bool, overwrite: bool, parts: Parts | None) -> Plan:
    given, functions = asked.given, asked.functions
    config = run_config(given if resume else with_defaults(given), resume=resume)
    register_custom(config.imports)
    check_once(functools.partial(check_run, config, resume=resume, overwrite=overwrite))
    guides = _guides(config, functions, keep=not (overwrite or resume))
    parts = parts or load_parts(config, asked.pairs)
    if has_positives_alone(parts.train) and not config.unlabelled:
        config = _for_positives_alone(config, functions, keeps_loss="loss" in given or resume)
        guides = guides and dataclasses.replace(guides, objective=build_objective(config, functions))
    if config.model == CROSS_ENCODER and "epochs" not in given and not resume:
        config = dataclasses.replace(config, epochs=passes_for(len(parts.train)))
    if guides is not None and not guides.objective.learns_from_a_teacher:
        parts = _without_grades(config, parts)
    return Plan(config, parts, guides)


def _without_grades(config: Config, parts: Parts) -> Parts:
    """The parts for a loss that learns labels alone: scores that were cut are labels to it.

    Raises:
        UserError: the pairs have grades that nobody has asked to cut.
    """
    if parts.train.grades is None:
        return parts
    if config.label_cut is not None:
        log.info("loss: no part of %r learns grades; it learns the labels, cut at %g", config.loss, config.label_cut)
        return dataclasses.replace(parts, train=dataclasses.replace(parts.train, grades=None))
    taking = ", ".join(name for name, entry in LOSSES.items() if entry.soft_labels)
    raise UserError(
        f"loss: no part of {config.loss!r} learns from graded labels; use one of {taking}, or give labels 0 and 1"
    )


def _work(run: Run, guides: Guides | None) -> Callable[[], Trained]:
    """What trains a run; the model is made now, so that what is wrong with its options is said at once."""
    train = run.parts.train
    if guides is None:
        return functools.partial(_train_cross_encoder, run, cross_encoder_of(run.config, train))
    return functools.partial(_train_encoder, run, new_encoder(run.config, train), guides)


def save_trained(model: Model, output: Path, *, overwrite: bool) -> Model:
    """Writes a trained model into its folder; returns it as it is there."""
    model.save(output, overwrite=overwrite)
    return dataclasses.replace(model, path=output) if isinstance(model, Checkpoint) else load(output)


def _train_cross_encoder(run: Run, network: CrossEncoder) -> Trained:
    """Trains and judges the cross-encoder of a run."""
    try:
        model, diverged = trained_cross_model(run, network)
    except NothingKept:
        shutil.rmtree(run.folder, ignore_errors=True)
        raise
    return Trained(model if rank() == 0 else None, _last_state(diverged, run.config))


def _last_state(diverged: str, config: Config) -> str:
    """What the user is told of a loss that became NaN after a state was kept; '' where it did not."""
    return diverged and f"{diverged}; the last good state is saved in {config.output}; lower --learning-rate"


def _train_encoder(run: Run, encoder: SentenceTransformer, guides: Guides) -> Trained:
    """Trains and judges the encoder of a run, after its teachers, and joins it to its reranker, if it has one."""
    kept = run.folder / ENCODER
    if not kept.exists():
        parts, fitted = _fit(run, encoder, guides)
        if rank() > 0:
            return Trained(None, _last_state(fitted.diverged, run.config))
        run.on_progress(Progress("evaluating"))
        if run.config.without_labels:
            checkpoint = judge_without_labels(fitted.encoder, run.config, parts, fitted.history)
        else:
            checkpoint = judge(fitted.encoder, run.config, parts, fitted.history, fitted.head)
        if not run.config.reranker or fitted.diverged:
            keep_teacher(run)
            return Trained(checkpoint, _last_state(fitted.diverged, run.config))
        save_checkpoint(checkpoint, kept)
        for state in complete_states(run.folder):
            shutil.rmtree(state)
    keep_teacher(run)
    return _with_reranker(run, load_checkpoint(kept), guides.reranker)


def _with_reranker(run: Run, encoder: Checkpoint, reranker: CrossModel | None) -> Trained:
    """The encoder of a run and its reranker, which is trained if it is not there, as one model.

    Where the loss of the reranker becomes NaN, the encoder alone.
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
                "another --seed, and join them with qpairs combine",
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
    """Trains the encoder of a run, after its teachers; returns the parts with what the teachers answered, too."""
    objective, teachers, schedule, rate_factor = guides.objective, guides.teachers, run.config, 1.0
    if ITSELF in run.config.probability_teachers:
        first = _first_pass(run, objective)
        encoder.load_state_dict(first.encoder.state_dict())
        teachers = {**teachers, ITSELF: Teacher(first, run.config.encoder, run.parts.split["fingerprint"])}
        objective, rate_factor = second_objective(first, objective), SECOND_RATE
        schedule = dataclasses.replace(run.config, epochs=run.config.second_epochs)
    if run.config.probability_teachers:
        run = dataclasses.replace(run, parts=ask_teachers(run, teachers, encoder))
    second = dataclasses.replace(run, config=schedule)
    vectors = guides.vectors and taught_vectors(run, guides.vectors, encoder.get_embedding_dimension() or 0)
    return run.parts, fit_bi_encoder(second, encoder, objective, rate_factor=rate_factor, taught=vectors)


def _first_pass(run: Run, objective: Objective) -> Checkpoint:
    """The encoder of a run that is its own teacher, trained on the labels alone, or resumed, or loaded."""
    output, states = run.folder / FIRST, run.folder / "first"
    if not output.exists():
        config = dataclasses.replace(run.config, teacher=(), reranker="", output=str(output))
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


def second_objective(first: Checkpoint, objective: Objective) -> Objective:
    """The loss of an encoder's second pass: the cross-entropy between its teachers' probabilities and its own.

    Its own are those that the calibration of its first pass gives for its cosines, so that the second pass starts
    where the encoder agrees with itself. The loss of a head is that already; and an encoder whose calibration does not
    rise with the cosine has no probabilities to speak of. Both keep their loss.
    """
    calibration = first.verdict.pair.calibration
    slope, intercept = calibration.slope, calibration.intercept
    if first.head is not None or slope <= 0:
        return objective
    logistic = Term("logistic", parameters={"scale": slope, "threshold": -intercept / slope})
    return dataclasses.replace(objective, terms=(logistic,))


def _guides(config: Config, functions: Mapping[str, Function], *, keep: bool) -> Guides | None:
    """What the encoder of a config is trained towards; None where a cross-encoder is trained.

    Args:
        config: the options of the run.
        functions: as in `build_objective`.
        keep: whether a teacher that an earlier run has kept beside its output must stay.

    Raises:
        UserError: options that do not go together, or a teacher or reranker that cannot be loaded.
    """
    if config.model == CROSS_ENCODER:
        check_cross_encoder(config)
        return None
    objective = build_objective(config, functions)
    return Guides(objective, load_teachers(config, overwrite=not keep), load_reranker(config), vector_teacher(config))


def build_objective(config: Config, functions: Mapping[str, Function] | None = None) -> Objective:
    """The objective of a config.

    Args:
        config: the options of the run.
        functions: the `loss` and the `miner` where they are functions, which the config only names.

    Raises:
        UserError: no such loss or miner, or options that do not go together.
    """
    functions = functions or {}
    objective = objective_of(functions.get("loss", config.loss), functions.get("miner", config.miner))
    if config.score == "head" and not objective.has_head:
        raise UserError(f"score: head needs the loss pair_softmax, which {config.loss!r} does not have")
    if config.dims:
        require_prefixes(objective)
    if config.queue:
        require_in_batch(objective, config.loss)
    if config.budget_minutes and world() > 1:
        raise UserError("budget_minutes: clocks differ between processes; set epochs instead")
    if config.probability_teachers and ITSELF not in config.teacher and not objective.learns_from_a_teacher:
        raise UserError(
            f"teacher: no part of the loss {config.loss!r} learns from it; add online_contrastive or logistic"
        )
    if config.unlabelled:
        _check_unlabelled(config, objective)
    if teachers_to_train(config.probability_teachers) and world() > 1:
        raise UserError("teacher: is trained by one process; train it there, then name its folder")
    return objective


def _for_positives_alone(config: Config, functions: Mapping[str, Function], *, keeps_loss: bool) -> Config:
    """The config of a run whose training pairs are all duplicates.

    Args:
        config: the options of the run.
        functions: as in `build_objective`.
        keeps_loss: whether the user has named the loss; else it becomes one with negatives of the batch.

    Raises:
        UserError: options that need pairs labelled 0.
    """
    for name, why in NEED_LABELS.items():
        if name != "drop_suspects" and getattr(config, name) != OPTIONS[name].default:
            raise UserError(f"{name}: {why} of both kinds, and the training pairs are all duplicates; leave it out")
    if teachers_to_train(config.probability_teachers):
        raise UserError("teacher: the training pairs are all duplicates, too few to train one on; name a folder of one")
    if not keeps_loss:
        config = dataclasses.replace(config, loss=WITHOUT_LABELS)
    elif not (build_objective(config, functions).learns_without_labels or config.probability_teachers):
        raise UserError(
            f"loss: {config.loss!r} needs pairs labelled 0, and the training pairs are all duplicates; use "
            f"{WITHOUT_LABELS}, or add strangers"
        )
    return config


def _check_unlabelled(config: Config, objective: Objective) -> None:
    if not (objective.learns_without_labels or config.probability_teachers):
        raise UserError(
            f"loss: {config.loss!r} reads labelled pairs alone, and unlabelled data has none; use {WITHOUT_LABELS}, or "
            "add strangers"
        )
    if teachers_to_train(config.probability_teachers):
        raise UserError("teacher: unlabelled data has no labels to train one on; name the folder of one")
    if config.without_labels and len(tower_names(config.encoder)) > 1:
        raise UserError("encoder: two towers need labels to be judged by; name labelled pairs with --validation")
