"""A training run, from the config to the saved checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from qpairs import metrics
from qpairs.config import Config, to_dict
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.evaluation.baselines import tfidf_scores
from qpairs.evaluation.calibrate import cross_fitted_scores
from qpairs.evaluation.evaluate import report
from qpairs.evaluation.prefixes import PrefixScore, prefix_scores, prefix_verdicts
from qpairs.evaluation.question_table import table_densities
from qpairs.models.base import Floats, Tables
from qpairs.models.bi_encoder import Checkpoint, embed_tables, load_checkpoint, save_checkpoint, score_tables
from qpairs.models.verdict import fit_verdict
from qpairs.objectives.functions import Function, objective_of, separate_functions
from qpairs.objectives.matryoshka import prefix_lengths, require_prefixes
from qpairs.objectives.objective import Objective, Term
from qpairs.objectives.pair_head import PairHead, Score
from qpairs.training.bi_encoder import Fitted, fit_bi_encoder, new_encoder
from qpairs.training.distributed import initialize, rank, world
from qpairs.training.run import Run, check_run, open_run, partial_of, run_config
from qpairs.training.teachers import ITSELF, Teacher, ask_teachers, keep_teacher, load_teachers, teachers_to_train

FIRST = "first-pass"  # in the folder of an unfinished run: the checkpoint of an encoder that is its own teacher
SECOND_RATE = 0.4  # factor on an encoder's learning rates in its second pass


def train(
    config: Config | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
    parts: Parts | None = None,
    **options: Any,
) -> Checkpoint:
    """Trains an encoder on question pairs, chooses the threshold on validation, judges it on the test part, and saves.

    States are kept in OUTPUT.partial until the checkpoint is complete in OUTPUT. A killed run resumes from the last of
    them and ends, on a CPU, with the same weights as an unbroken one.

    Args:
        config: the choices of the run; None: the defaults.
        resume: go on with the interrupted run of `output`; its config is kept, and need not be given again.
        overwrite: replace the checkpoint, and the unfinished run, of `output`.
        on_progress: called at every step.
        parts: the data, where it is loaded already; None: that of the config.
        options: fields of `Config`, over those of `config`. `loss` may also be a function (sim, Relation) -> scalar,
            and `miner` a function (sim, Relation) -> Relation, see `objectives.functions.objective_of`. The config
            stores their names; to resume such a run, pass them again.

    Raises:
        UserError: something that the user can mend; or the loss became NaN, and the last good state was saved.

    >>> model = train(data="mine.csv", encoder="minilm", epochs=2)  # doctest: +SKIP
    >>> model.scores["test"]["f1_interval"]  # doctest: +SKIP
    (0.71, 0.77)
    """
    initialize()
    options, functions = separate_functions(options)
    config = run_config({**(to_dict(config) if config else {}), **options}, resume=resume)
    output, objective = Path(config.output), build_objective(config, functions)
    check_run(config, resume=resume, overwrite=overwrite)
    teachers = load_teachers(config, overwrite=overwrite or resume)
    run = Run(config, parts or load_parts(config), partial_of(output), on_progress if rank() == 0 else ignore)
    encoder = new_encoder(config, run.parts.train)
    with open_run(run, resume=resume):
        parts, fitted = _fit(run, encoder, objective, teachers)
        if rank() == 0:
            run.on_progress(Progress("evaluating"))
            checkpoint = judge(fitted.encoder, config, parts, fitted.history, fitted.head)
            keep_teacher(run)
            checkpoint = dataclasses.replace(checkpoint, path=save_checkpoint(checkpoint, output, overwrite=overwrite))
    if fitted.diverged:
        raise UserError(f"{fitted.diverged}; the last good state is saved in {output}; lower --learning-rate")
    return checkpoint if rank() == 0 else load_checkpoint(output)


def _fit(
    run: Run, encoder: SentenceTransformer, objective: Objective, teachers: Mapping[str, Teacher]
) -> tuple[Parts, Fitted]:
    """Trains the encoder of a run, after its teachers; returns the parts with what the teachers answered, too."""
    schedule, rate_factor = run.config, 1.0
    if ITSELF in run.config.teacher:
        first = _first_pass(run, objective)
        encoder.load_state_dict(first.encoder.state_dict())
        teachers = {**teachers, ITSELF: Teacher(first, run.config.encoder, run.parts.split["fingerprint"])}
        objective, rate_factor = second_objective(first, objective), SECOND_RATE
        schedule = dataclasses.replace(run.config, epochs=run.config.second_epochs)
    if run.config.teacher:
        run = dataclasses.replace(run, parts=ask_teachers(run, teachers, encoder))
    second = dataclasses.replace(run, config=schedule)
    return run.parts, fit_bi_encoder(second, encoder, objective, rate_factor=rate_factor)


def _first_pass(run: Run, objective: Objective) -> Checkpoint:
    """The encoder of a run that is its own teacher, trained on the labels alone, or resumed, or loaded."""
    output, states = run.folder / FIRST, run.folder / "first"
    if not output.exists():
        config = dataclasses.replace(run.config, teacher=(), output=str(output))
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
    if config.budget_minutes and world() > 1:
        raise UserError("budget_minutes: clocks differ between processes; set epochs instead")
    if config.teacher and ITSELF not in config.teacher and not objective.learns_from_a_teacher:
        raise UserError(
            f"teacher: no part of the loss {config.loss!r} learns from it; add online_contrastive or logistic"
        )
    if teachers_to_train(config.teacher) and world() > 1:
        raise UserError("teacher: is trained by one process; train it there, then name its folder")
    return objective


def judge(
    encoder: SentenceTransformer,
    config: Config,
    parts: Parts,
    history: list[dict[str, Any]],
    head: PairHead | None = None,
) -> Checkpoint:
    """Chooses threshold and calibration on the validation part and reports on it, and on the test part if there is one.

    With `dims`, each length of the vectors gets a verdict of its own, and the part `dimensions` of a report its scores.

    Args:
        encoder: a trained encoder.
        config: the options of the run.
        parts: its data.
        history: what training reported.
        head: the classifier that the verdict reads; None: the cosine.
    """
    pairs = parts.validation
    tables = embed_tables(encoder, pairs.questions)
    scores = score_tables(tables, pairs, Score(head, config.symmetric))
    verdict = fit_verdict(
        scores,
        pairs.labels,
        metrics.best_threshold(tfidf_scores(pairs), pairs.labels),
        score="cosine" if head is None else "head",
        symmetric=config.symmetric,
        densities=table_densities(pairs, tables, symmetric=config.symmetric, seed=config.seed)
        if head is None
        else None,
    )
    lengths = prefix_lengths(config.dims, tables[0].shape[1])
    shortened = prefix_verdicts(lengths, pairs, tables, verdict, seed=config.seed)
    verdict = dataclasses.replace(verdict, shortened=shortened)
    checkpoint = Checkpoint(encoder, verdict, config, parts.split, history=history, head=head)
    groups = question_components(pairs)[pairs.left]
    on_validation = _report(checkpoint, pairs, scores, tables)
    on_validation |= cross_fitted_scores(scores, pairs.labels, groups, config.seed)
    found = {"validation": on_validation}
    if parts.test is not None:
        found["test"] = _report(checkpoint, parts.test, *checkpoint.score_pairs(parts.test))
    return dataclasses.replace(checkpoint, scores=found)


def _report(checkpoint: Checkpoint, pairs: Pairs, scores: Floats, tables: Tables) -> dict[str, Any]:
    """The report on a part, as a checkpoint keeps it; with the scores of each length where there are several."""
    found = report(checkpoint, pairs, scores, tables, seed=checkpoint.config.seed)
    values = found.to_dict(brief=True)
    if checkpoint.verdict.shortened:
        whole = PrefixScore(tables[0].shape[1], found.threshold, found.f1, found.average_precision)
        rows = [whole, *prefix_scores(checkpoint.verdict.shortened, pairs, tables)]
        values["dimensions"] = [dataclasses.asdict(row) for row in rows]
    return values
