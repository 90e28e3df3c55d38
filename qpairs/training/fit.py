"""A training run, from the config to the saved model.

Errors in options and data are reported before torch and transformers are imported, which takes seconds: they are
imported where they are used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from qpairs.config import CROSS_ENCODER, Config, to_dict, with_defaults
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, has_positives_alone, load_parts, separate_pairs
from qpairs.encoders.build import check_encoder
from qpairs.models.base import Model, load
from qpairs.models.unfinished import partial_of
from qpairs.objectives.plugins import register_custom
from qpairs.training.distributed import check_once, initialize, rank
from qpairs.training.names import check_cross_encoder, teachers_to_train
from qpairs.training.options import TrainOptions, shows_options
from qpairs.training.run import Run, check_run, open_run, run_config, saved_before

if TYPE_CHECKING:
    from qpairs.objectives.expressions import Function
    from qpairs.training.guides import Guides


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
    """Trains a model on question pairs, chooses the threshold on validation, evaluates on the test part, and saves.

    The model is an encoder (a `Checkpoint`); with `model="cross-encoder"` a `CrossModel`; with a `reranker`, an encoder
    and a cross-encoder combined (`TwoStages`).

    States are kept in OUTPUT.partial until the model is complete in OUTPUT. A killed run resumes from the last of them
    and ends, on a CPU, with the same weights as an unbroken one.

    Args:
        config: the choices of the run; None: the defaults.
        resume: resume the interrupted run of `output`; its config is kept, and need not be given again.
        overwrite: replace the model, and the unfinished run, of `output`.
        on_progress: called at every step.
        parts: the data, if it is already loaded; None: that of the config.
        options: fields of `Config`, over those of `config`. `loss` may also be a function (sim, Relation) -> scalar,
            and `miner` a function (sim, Relation) -> Relation, see `objectives.functions.objective_of`. The config
            stores their names; to resume such a run, pass them again. `data`, `validation`, `test` and
            `drop_suspects` may also be rows in memory, as in `load_pairs`: the same holds for them.

    Raises:
        UserError: something that the user can fix; or the loss became NaN, and the last good state was saved.

    >>> model = train(data="mine.csv", encoder="minilm", epochs=2)  # doctest: +SKIP
    >>> model.scores["test"]["f1_interval"]  # doctest: +SKIP
    (0.71, 0.77)
    """
    initialize()
    asked = _asked(config, options)
    if resume and (saved := saved_before(run_config(asked.given, resume=True))) is not None:
        return load(saved)
    plan = _plan(asked, resume=resume, overwrite=overwrite, parts=parts)
    from qpairs.training.stages import save_trained, work_of

    output = Path(plan.config.output)
    run = Run(plan.config, plan.parts, partial_of(output), on_progress if rank() == 0 else ignore)
    work, model = work_of(run, plan.guides), None
    with open_run(run, resume=resume):
        trained = work()
        if trained.model is not None:
            model = save_trained(trained.model, output, overwrite=overwrite)
    if trained.warning:
        raise UserError(trained.warning)
    return model or load(output)


@dataclass(frozen=True)
class Plan:
    """A planned run: its options, its data, and what its encoder is trained towards; nothing is written yet.

    Attributes:
        config: with its output folder.
        parts: the data.
        guides: None if a cross-encoder is trained.
    """

    config: Config
    parts: Parts
    guides: Guides | None


@dataclass(frozen=True)
class _Asked:
    """The options of a run; rows in memory are read, as an iterator gives them only once."""

    given: Mapping[str, Any]
    pairs: Mapping[str, Pairs]
    functions: Mapping[str, Function]


def _asked(config: Config | None, options: Mapping[str, Any]) -> _Asked:
    values, functions = dict(options), dict[str, Any]()
    if any(callable(options.get(what)) for what in ("loss", "miner")):
        from qpairs.objectives.functions import separate_functions

        values, functions = separate_functions(options)
    return _Asked(*separate_pairs({**(to_dict(config) if config else {}), **values}), functions)


def plan_run(config: Config | None, options: Mapping[str, Any], *, overwrite: bool = False) -> Plan:
    """Reads the options of a run, checks them and loads its data; the arguments are those of `train`.

    Raises:
        UserError: something that the user can fix.

    >>> plan_run(None, {"data": "mine.csv", "encoder": "static"}).config.output  # doctest: +SKIP
    'runs/mine-static'
    """
    return _plan(_asked(config, options), resume=False, overwrite=overwrite, parts=None)


def _plan(asked: _Asked, *, resume: bool, overwrite: bool, parts: Parts | None) -> Plan:
    given, functions = asked.given, asked.functions
    config = run_config(given if resume else with_defaults(given), resume=resume)
    register_custom(config.imports)
    check_once(functools.partial(check_run, config, resume=resume, overwrite=overwrite))
    check_encoder(config.encoder, config.vectors, share_vectors=config.share_vectors, prompt=config.prompt)
    if config.model == CROSS_ENCODER:
        check_cross_encoder(config)
    teachers_to_train(config.probability_teachers)
    parts = parts or load_parts(config, asked.pairs)
    from qpairs.training.guides import build_objective, for_positives_alone, load_guides, without_grades

    guides = load_guides(config, functions, keep=not (overwrite or resume))
    if has_positives_alone(parts.train) and not config.unlabelled:
        config = for_positives_alone(config, functions, keeps_loss="loss" in given or resume)
        guides = guides and dataclasses.replace(guides, objective=build_objective(config, functions))
    if config.model == CROSS_ENCODER and "epochs" not in given and not resume:
        from qpairs.training.cross_models import passes_for

        config = dataclasses.replace(config, epochs=passes_for(len(parts.train)))
    if guides is not None and not guides.objective.learns_from_a_teacher:
        parts = without_grades(config, parts)
    return Plan(config, parts, guides)
