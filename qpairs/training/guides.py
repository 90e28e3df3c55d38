"""What an encoder is trained towards: its loss, its teachers and its reranker, and what its options need from the data.

A loss is read before teachers and rerankers are loaded, which imports transformers.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpairs.config import CROSS_ENCODER, NEED_LABELS, OPTIONS, WITHOUT_LABELS, Config
from qpairs.core.exceptions import UserError
from qpairs.data.parts import Parts
from qpairs.encoders.build import tower_names
from qpairs.objectives.expressions import Function
from qpairs.objectives.functions import objective_of
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.matryoshka import require_prefixes
from qpairs.objectives.objective import Objective
from qpairs.objectives.queue import require_in_batch
from qpairs.training.distributed import world
from qpairs.training.names import ITSELF, teachers_to_train

if TYPE_CHECKING:
    from qpairs.models.cross_encoder import CrossModel
    from qpairs.training.teacher_vectors import Embed
    from qpairs.training.teachers import Teacher

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guides:
    """What an encoder is trained towards, besides its data.

    Attributes:
        objective: the loss.
        teachers: those that exist already, by name.
        reranker: the cross-encoder to combine it with, if that exists already.
        vectors: from questions to the vectors to learn; None if there are none.
    """

    objective: Objective
    teachers: Mapping[str, Teacher]
    reranker: CrossModel | None
    vectors: Embed | None = None


def load_guides(config: Config, functions: Mapping[str, Function], *, keep: bool) -> Guides | None:
    """What the encoder of a config is trained towards; None if a cross-encoder is trained.

    Args:
        config: the options of the run.
        functions: as in `build_objective`.
        keep: whether a teacher that an earlier run has kept next to its output must stay.

    Raises:
        UserError: options that do not go together, or a teacher or reranker that cannot be loaded.
    """
    if config.model == CROSS_ENCODER:
        return None
    objective = build_objective(config, functions)
    from qpairs.training.cross_models import load_reranker
    from qpairs.training.teacher_vectors import vector_teacher
    from qpairs.training.teachers import load_teachers

    return Guides(objective, load_teachers(config, overwrite=not keep), load_reranker(config), vector_teacher(config))


def build_objective(config: Config, functions: Mapping[str, Function] | None = None) -> Objective:
    """The objective of a config.

    Args:
        config: the options of the run.
        functions: the `loss` and the `miner` if they are functions, which the config only names.

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
        raise UserError("teacher: is trained by a single process; train it with one, then name its folder")
    return objective


def for_positives_alone(config: Config, functions: Mapping[str, Function], *, keeps_loss: bool) -> Config:
    """The config of a run whose training pairs are all duplicates.

    Args:
        config: the options of the run.
        functions: as in `build_objective`.
        keeps_loss: whether the user has named the loss; else it becomes one with in-batch negatives.

    Raises:
        UserError: options that need pairs labelled 0.
    """
    for name, why in NEED_LABELS.items():
        if name != "drop_suspects" and getattr(config, name) != OPTIONS[name].default:
            raise UserError(f"{name}: {why} of both kinds, but the training pairs are all duplicates; leave it out")
    if teachers_to_train(config.probability_teachers):
        raise UserError(
            "teacher: the training pairs are all duplicates, so none can be trained on them; name the folder of one"
        )
    if not keeps_loss:
        config = dataclasses.replace(config, loss=WITHOUT_LABELS)
    elif not (build_objective(config, functions).learns_without_labels or config.probability_teachers):
        raise UserError(
            f"loss: {config.loss!r} needs pairs labelled 0, but the training pairs are all duplicates; use "
            f"{WITHOUT_LABELS}, or add strangers"
        )
    return config


def _check_unlabelled(config: Config, objective: Objective) -> None:
    if not (objective.learns_without_labels or config.probability_teachers):
        raise UserError(
            f"loss: {config.loss!r} reads only labelled pairs, and unlabelled data has none; use {WITHOUT_LABELS}, or "
            "add strangers"
        )
    if teachers_to_train(config.probability_teachers):
        raise UserError("teacher: unlabelled data has no labels to train one on; name the folder of one")
    if config.without_labels and len(tower_names(config.encoder)) > 1:
        raise UserError("encoder: two towers need labels for evaluation; name labelled pairs with --validation")


def without_grades(config: Config, parts: Parts) -> Parts:
    """The parts for a loss that learns only labels: scores with a cut are labels.

    Raises:
        UserError: the pairs have grades, but no cut is given.
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
