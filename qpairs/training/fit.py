"""From a config to a checkpoint: the data, the encoder, the objective and the Hugging Face Trainer, wired together."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import EvalPrediction

from qpairs import metrics
from qpairs.config import Config, config_from, read_toml, to_dict, to_toml
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file, atomic_folder, exclusive_lock
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts, load_parts
from qpairs.data.splits import question_components
from qpairs.encoders.build import build_encoder, tower_names
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.precision import trains_in_bf16
from qpairs.encoders.tokens import embed, features, token_ids, word_dropout
from qpairs.encoders.towers import towers
from qpairs.evaluation.evaluate import cross_fitted, evaluate, report, tfidf_scores
from qpairs.models.base import check_output
from qpairs.models.bi_encoder import Checkpoint, embed_tables, load_checkpoint, save_checkpoint, score_tables
from qpairs.models.verdict import fit_verdict
from qpairs.objectives.miners import miner
from qpairs.objectives.objective import Objective, Term, objective
from qpairs.objectives.relations import Knowledge, PairHead, Score
from qpairs.training.batches import Batches, Feed, graph_of, group_sampler, in_order, pair_sampler, triplet_sampler
from qpairs.training.distributed import barrier, broadcast, gather, initialize, rank, rank_zero_first, world
from qpairs.training.hard_negatives import nearest_negatives
from qpairs.training.teachers import (
    ITSELF,
    Teacher,
    check_teacher_output,
    cross_encoder_of,
    load_teacher,
    save_cross_encoder,
    scores_on,
    taught_pairs,
    train_cross_encoder,
    trained_here,
)
from qpairs.training.trainer import Diverged, Observer, Progress, linear_schedule, only_item, states, trainer_arguments

log = logging.getLogger(__name__)

LEARNING_RATES = {"lstm": 3e-3, "cnn": 1e-3, "static": 1e-2, "tiny": 5e-4}
FINE_TUNING_RATE = 5e-5  # for encoders that come trained
VALIDATION_LIMIT = 4096  # pairs of validation that are looked at during training; the threshold is chosen on all
HEAD_RATE = 1e-2  # of a head on pairs
SECOND_RATE = 0.4  # of the rates of an encoder's first pass, in the second one
TRAINED = "trained-teacher"  # in the folder of an unfinished run: a cross-encoder that is whole
FIRST = "first-pass"  # there, too: the checkpoint of an encoder that is its own teacher


class PairModel(nn.Module):
    """An encoder, an objective and what it learns besides, as one module that the Trainer can call."""

    def __init__(
        self,
        encoder: SentenceTransformer,
        objective: Objective,
        learned: nn.ModuleDict,
        score: Score,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.encoder, self.objective, self.learned, self.score = encoder, objective, learned, score
        self.towers = towers(encoder)  # a tuple, so that the parameters are registered once, under the encoder
        self.register_state_dict_post_hook(_leave_twins_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_twins_in)  # type: ignore[no-untyped-call]

    def forward(
        self,
        features: list[dict[str, Tensor]],
        left: Tensor,
        right: Tensor,
        labels: Tensor,
        component: Tensor,
        positive: Tensor,
        labelled: Tensor,
        strangers: Tensor,
        places: Tensor,
        column_features: list[dict[str, Tensor]] | None = None,
        column_component: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch of n questions, and the score of its pairs.

        Args:
            features: inputs of the first tower in chunks, together this process's share of n questions.
            left: (pairs,) row of each pair's first question.
            right: (pairs,) column of its second one.
            labels: (pairs,) read by the Trainer alone.
            component: (n,) duplicate component of each row, for prototypes.
            positive: (n, m) mask as in `relations.Knowledge`.
            labelled: (n, m) mask, likewise.
            strangers: (n, m) mask, likewise.
            places: (k, 2) int64, likewise.
            column_features: inputs of the second tower in chunks, together its share of m questions; without it,
                columns are rows.
            column_component: (m,) duplicate component of each of them.
            taught: (n, m) as in `relations.Knowledge`.

        Raises:
            Diverged: the loss is not a finite number.
        """
        n, m = positive.shape
        rows = gather(self._embed(self.towers[0], features), n)  # (n, d)
        columns, members = rows, (rows, component)
        if column_features is not None and column_component is not None:
            columns = gather(self._embed(self.towers[1], column_features), m)  # (m, d)
            members = torch.cat([rows, columns]), torch.cat([component, column_component])
        known = Knowledge(positive, labelled, strangers, places, taught)
        loss = self.objective(rows, columns, known, members, self.learned)
        if loss.device.type == "cpu" and not torch.isfinite(loss):  # a GPU would wait here: see loop.Observer.on_log
            raise Diverged
        with torch.no_grad():
            return {"loss": loss, "scores": self.score(rows.float(), columns.float(), left, right)}

    def _embed(self, tower: nn.Module, chunks: list[dict[str, Tensor]]) -> Tensor:
        """Embeddings (k, d) of the questions of some chunks.

        With `recompute`, the activations of a chunk are thrown away after the forward pass and made again when its
        gradient comes: gradient caching (Gao et al. 2021, section 3), with the same dropout.
        """
        if self.recompute and self.training:
            return torch.cat([checkpoint(_embeddings, tower, chunk, use_reentrant=False) for chunk in chunks])
        return torch.cat([_embeddings(tower, chunk) for chunk in chunks])


def _embeddings(tower: nn.Module, chunk: dict[str, Tensor]) -> Tensor:
    embeddings: Tensor = tower(chunk)["sentence_embedding"]  # (k, d)
    return embeddings


def _twins(module: nn.Module) -> dict[str, str]:
    """Further names of parameters that have several, such as shared word vectors, and their first ones."""
    first: dict[nn.Parameter, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    return {name: first[p] for name, p in named if first.setdefault(p, name) != name}


def _leave_twins_out(module: nn.Module, state: dict[str, Tensor], prefix: str, *metadata: Any) -> None:
    for name in _twins(module):  # safetensors takes no tensor twice
        del state[prefix + name]


def _put_twins_in(module: nn.Module, state: dict[str, Tensor], prefix: str, *details: Any) -> None:
    for name, first in _twins(module).items():
        state.setdefault(prefix + name, state[prefix + first])


def default_output(config: Config) -> Path:
    """The first free folder runs/DATA-ENCODER, runs/DATA-ENCODER-2, ..."""
    name = "-".join(Path(part).stem for part in (config.data[0], config.encoder))
    places = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(place for place in places if not place.exists() and not partial_of(place).exists())


def partial_of(output: Path) -> Path:
    """Where the states of an unfinished run lie, beside its output."""
    return output.with_name(f"{output.name}.partial")


def teacher_of(output: Path) -> Path:
    """Where the cross-encoder that a run trains is kept, beside its output: the next run can learn from it."""
    return output.with_name(f"{output.name}-teacher")


def train(
    config: Config | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts | None = None,
    **options: Any,
) -> Checkpoint:
    """Trains an encoder on question pairs, chooses the threshold on validation, judges it on the test part, and saves.

    The states of the run are kept in OUTPUT.partial until the checkpoint is whole in OUTPUT; a run that was killed
    goes on from the last of them and ends, on a CPU, with the same weights as an unbroken one.

    Args:
        config: what to do; without it, the defaults.
        resume: go on with the interrupted run of `output`; its config is kept, and need not be given again.
        overwrite: replace the checkpoint, and the unfinished run, of `output`.
        on_progress: called at every step.
        parts: the data, where it is loaded already; without it, that of the config.
        options: fields of `Config`, over those of `config`.

    Returns:
        The checkpoint, as saved in the output folder.

    Raises:
        UserError: something that the user can mend; or the loss became NaN, and the last good state was saved.
    """
    initialize()
    asked = {**(to_dict(config) if config else {}), **options}
    config = config_from(asked, where="train")
    if resume and not config.output:
        raise UserError("resume: name the interrupted run's folder with --output")
    output = Path(config.output) if config.output else broadcast(default_output(config))
    partial = partial_of(output)
    config = _stored_config(partial, asked) if resume else dataclasses.replace(config, output=str(output))
    goal = build_objective(config)
    _check_reporter(config.report_to)
    check_output(output, overwrite=overwrite)
    if cross_encoder_of(config.teacher):
        check_teacher_output(teacher_of(output), overwrite=overwrite or resume)
    if partial.exists() and not (resume or overwrite):
        raise UserError(
            f"{partial}: an unfinished run is here; go on with it by --resume, or start anew by --overwrite"
        )
    there = {name: load_teacher(name) for name in config.teacher if name not in trained_here(config.teacher)}
    parts = parts or load_parts(config)
    fresh_encoder = _new_encoder(config, parts)
    barrier()  # no process writes before all have looked at the folders
    with exclusive_lock(partial) if rank() == 0 else contextlib.nullcontext():
        if rank() == 0 and not resume:
            _clear(partial)
            (partial / "config.toml").write_text(to_toml(config), encoding="utf-8")
            (partial / "split.json").write_text(json.dumps(parts.split), encoding="utf-8")
        barrier()
        if json.loads((partial / "split.json").read_text("utf-8"))["fingerprint"] != parts.split["fingerprint"]:
            raise UserError(
                f"{partial}: the data has changed since the run was interrupted; start anew with --overwrite"
            )
        try:
            told, slower = config, 1.0
            if ITSELF in config.teacher:
                first = _first_pass(config, parts, partial, on_progress)
                fresh_encoder.load_state_dict(first.encoder.state_dict())
                there = {**there, ITSELF: Teacher(first, config.encoder, parts.split["fingerprint"])}
                goal, slower = _second_goal(first, goal), SECOND_RATE
                told = dataclasses.replace(config, epochs=config.second_epochs)
            if config.teacher:
                parts = _with_teachers(config, parts, there, fresh_encoder, partial, on_progress)
            encoder, head, history, diverged = _fit(
                told, parts, fresh_encoder, goal, partial, on_progress, slower=slower
            )
        except KeyboardInterrupt:
            log.warning("interrupted; go on with: qpairs train --resume --output %s", output)
            raise
        if rank() == 0:
            judged = judge(encoder, config, parts, history, head)
            if cross_encoder_of(config.teacher):
                with atomic_folder(teacher_of(output)) as fresh:
                    shutil.copytree(partial / TRAINED, fresh, dirs_exist_ok=True)
            judged = dataclasses.replace(judged, path=save_checkpoint(judged, output, overwrite=overwrite))
            shutil.rmtree(partial, ignore_errors=True)
        barrier()
    if diverged:
        raise UserError(f"{diverged}; the last good state is saved in {output}; lower --learning-rate")
    return judged if rank() == 0 else load_checkpoint(output)


def build_objective(config: Config) -> Objective:
    """The objective of a config.

    Raises:
        UserError: no such loss or miner, or options that do not go together.
    """
    goal = objective(config.loss)
    if config.miner != "everything":
        goal = dataclasses.replace(goal, miner=miner(config.miner))
    if config.score == "head" and not goal.has_head:
        raise UserError(f"score: head needs the loss pair_softmax, which {config.loss!r} does not have")
    if config.budget_minutes and world() > 1:
        raise UserError("budget_minutes: clocks differ between processes; set epochs instead")
    if config.teacher and ITSELF not in config.teacher and not goal.learns_from_a_teacher:
        raise UserError(
            f"teacher: no part of the loss {config.loss!r} learns from it; add online_contrastive or logistic"
        )
    if config.teacher and config.sampler == "groups":
        raise UserError("teacher: judges pairs, and the sampler groups draws none; use pairs or triplets")
    if trained_here(config.teacher) and world() > 1:
        raise UserError("teacher: is trained by one process; train it there, then name its folder")
    if not config.symmetric and config.sampler == "groups":
        raise UserError("sampler: groups meet regardless of side; use pairs or triplets with --no-symmetric")
    if not config.symmetric and config.augment:
        raise UserError("augment: puts a question beside its changed self, which --no-symmetric does not allow")
    return goal


def _with_teachers(
    config: Config,
    parts: Parts,
    there: Mapping[str, Teacher],
    encoder: SentenceTransformer,
    partial: Path,
    on_progress: Callable[[Progress], None] | None,
) -> Parts:
    """The parts, the training pairs with what the teachers think of them and of the nearest questions besides.

    What is trained and answered is kept in `partial`, so that a run that is resumed does nothing twice.
    """
    answers, about, fingerprint = partial / "taught.safetensors", partial / "teacher.json", parts.split["fingerprint"]
    with rank_zero_first():
        if not about.exists():
            if name := cross_encoder_of(config.teacher):
                there = {**there, name: _new_teacher(config, name, parts, partial, on_progress)}
            teachers = [there[name] for name in config.teacher]
            for name in config.teacher:
                if there[name].fingerprint != fingerprint:
                    log.warning(
                        "teacher: %s was not trained on this split; it may know the answers to validation and test "
                        "pairs",
                        name,
                    )
            searcher, crossed = encoder, [t.encoder for t in teachers if not isinstance(t.model, Checkpoint)]
            if crossed and crossed[0] not in ("", config.encoder):
                searcher = build_encoder(crossed[0], texts=parts.train.questions, seed=config.seed)
            taught = taught_pairs(teachers, towers(searcher)[0], parts.train, config.neighbours, on_progress)
            arrays = {name: getattr(taught, name) for name in ("left", "right", "labels", "taught")}
            with atomic_file(answers) as fresh:
                save_arrays(arrays, fresh)
            told = {
                "same_split": all(teacher.fingerprint == fingerprint for teacher in teachers),
                "neighbours": len(taught) - len(parts.train),
                **scores_on(teachers, parts.validation),
            }
            with atomic_file(about) as fresh:
                fresh.write_text(json.dumps(told), encoding="utf-8")
    kept = load_arrays(answers)
    train = Pairs(parts.train.questions, kept["left"], kept["right"], kept["labels"], taught=kept["taught"])
    split = {**parts.split, "teacher": json.loads(about.read_text("utf-8"))}
    return dataclasses.replace(parts, train=train, split=split)


def _new_teacher(
    config: Config, name: str, parts: Parts, partial: Path, on_progress: Callable[[Progress], None] | None
) -> Teacher:
    """The cross-encoder of a run, trained or gone on with."""
    if not (partial / TRAINED).exists():
        try:
            model = train_cross_encoder(config, parts.train, partial / "teacher", on_progress)
        except Diverged:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError("teacher: its loss became NaN; nothing was saved; try another --seed") from None
        save_cross_encoder(model, partial / TRAINED, encoder=name, fingerprint=parts.split["fingerprint"])
        shutil.rmtree(partial / "teacher")
    return load_teacher(str(partial / TRAINED))


def _first_pass(
    config: Config, parts: Parts, partial: Path, on_progress: Callable[[Progress], None] | None
) -> Checkpoint:
    """The encoder of a run that is to teach itself, trained on the labels alone, or gone on with."""
    if not (partial / FIRST).exists():
        alone = dataclasses.replace(config, teacher=(), output=str(partial / FIRST))
        try:
            encoder, head, history, diverged = _fit(
                alone,
                parts,
                _new_encoder(config, parts),
                build_objective(alone),
                partial / "first",
                on_progress,
                "itself",
            )
            if diverged:
                raise UserError(f"teacher: {diverged}; nothing was saved; lower --learning-rate")
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        save_checkpoint(judge(encoder, alone, parts, history, head), partial / FIRST)
        shutil.rmtree(partial / "first")
    return load_checkpoint(partial / FIRST)


def _second_goal(first: Checkpoint, goal: Objective) -> Objective:
    """What an encoder's second pass minimises: the cross-entropy between its teachers' verdicts and its own.

    Its own is the one that the calibration of its first pass reads off the cosine, so that it starts where it agrees
    with itself. A head's loss is that already; and an encoder that cannot tell pairs apart has no verdict.
    """
    calibration = first.verdict.pair.calibration
    slope, intercept = calibration.slope, calibration.intercept
    if first.head is not None or slope <= 0:
        return goal
    verdict = Term("logistic", parameters={"scale": slope, "threshold": -intercept / slope})
    return dataclasses.replace(goal, terms=(verdict,))


def _new_encoder(config: Config, parts: Parts) -> SentenceTransformer:
    return build_encoder(
        config.encoder,
        vectors=config.vectors,
        texts=parts.train.questions,
        max_length=config.max_length,
        seed=config.seed,
        share_vectors=config.share_vectors,
    )


def _check_reporter(name: str) -> None:
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"report_to: {name} is not installed; pip install {name}")


def _stored_config(partial: Path, asked: Mapping[str, Any]) -> Config:
    """The config of an interrupted run, which what is asked for now must not contradict."""
    if not (partial / "split.json").exists():
        raise UserError(f"{partial}: no interrupted run to resume")
    stored = config_from(read_toml(partial / "config.toml"), where=str(partial / "config.toml"))
    wanted, kept = to_dict(config_from(asked)), to_dict(stored)
    changed = [name for name in asked if wanted.get(name) != kept.get(name)]
    if changed:
        raise UserError(
            f"{partial}: the interrupted run has another {changed[0]} ({kept.get(changed[0])!r}); "
            "resume without that option, or start anew with --overwrite"
        )
    return stored


def _clear(partial: Path) -> None:
    for entry in partial.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def _fit(
    config: Config,
    parts: Parts,
    encoder: SentenceTransformer,
    goal: Objective,
    partial: Path,
    on_progress: Callable[[Progress], None] | None,
    phase: str = "encoder",
    slower: float = 1.0,
) -> tuple[SentenceTransformer, PairHead | None, list[dict[str, Any]], str]:
    """Trains; returns encoder and head at their best state, the history, and what went wrong if the loss diverged.

    `slower` is a factor on the learning rates.
    """
    looked_at = parts.validation
    if len(looked_at) > VALIDATION_LIMIT:
        rows = np.random.default_rng(config.seed).choice(len(looked_at), VALIDATION_LIMIT, replace=False)
        looked_at = looked_at.subset(np.sort(rows))
    training = _training_batches(encoder, parts.train, config, partial)
    validation = _in_order(encoder, looked_at, config)
    n_components = int(training.graph.guard.max()) + 1
    learned = goal.learned(n_components, encoder.get_embedding_dimension() or 0)
    head = next((module for module in learned.values() if isinstance(module, PairHead)), None)
    score = Score(head if config.score == "head" else None, config.symmetric)
    model = PairModel(encoder, goal, learned, score, recompute=config.gradient_cache > 0)
    steps_per_epoch = training.steps
    training.steps = max(1, math.ceil(steps_per_epoch * config.epochs))
    every = math.ceil(steps_per_epoch / config.evaluations)
    observer = Observer(config, steps_per_epoch, on_progress if rank() == 0 else None, phase)
    callbacks: list[TrainerCallback] = [observer]
    if config.report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(Path(config.output).parent / "tensorboard" / partial.stem)
        callbacks.append(TensorBoardCallback(writer))  # type: ignore[no-untyped-call]
    if config.patience:
        callbacks.append(EarlyStoppingCallback(config.patience))
    set_dropout(encoder, config.dropout)
    optimizer = _optimizer(model, config, slower)
    trainer = Trainer(
        model=model,
        args=trainer_arguments(
            config,
            encoder,
            partial,
            training.steps,
            every,
            eval_strategy="steps",
            eval_steps=every,
            load_best_model_at_end=True,
            metric_for_best_model="average_precision",
            greater_is_better=True,
            restore_callback_states_from_checkpoint=True,
            dataloader_num_workers=_workers(config),
            report_to="none" if config.report_to == "tensorboard" else config.report_to,
        ),
        data_collator=only_item,
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=_validation_scores,
        callbacks=callbacks,
        optimizers=(optimizer, linear_schedule(optimizer, training.steps, config.warmup, config.budget_minutes)),
    )
    trainer.remove_callback(PrinterCallback)
    diverged = ""
    whole = states(partial)
    try:
        trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
    except Diverged:
        diverged = f"the loss became NaN at step {trainer.state.global_step + 1}"
        whole = states(partial)
        if not whole:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"{diverged}, before the first evaluation; nothing was saved; lower --learning-rate"
            ) from None
        model.load_state_dict(load_file(whole[-1] / "model.safetensors"))
    history = _history(trainer.state.log_history, steps_per_epoch)
    return encoder.to("cpu").float(), model.score.head and model.score.head.to("cpu"), history, diverged


def _optimizer(model: PairModel, config: Config, slower: float) -> torch.optim.Optimizer:
    """AdamW; each tower and the head have a rate of their own, and the matrices of the towers alone decay."""
    seen: set[nn.Parameter] = set()
    groups: list[dict[str, Any]] = []

    def add(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> None:
        fresh = [p for p in parameters if p.requires_grad and p not in seen]
        seen.update(fresh)
        if fresh:
            groups.append({"params": fresh, "lr": rate * slower, "weight_decay": decay})

    for name, tower in zip(tower_names(config.encoder), model.towers, strict=False):
        rate = config.learning_rate or LEARNING_RATES.get(name, FINE_TUNING_RATE)
        add((p for p in tower.parameters() if p.ndim > 1), rate, config.weight_decay)
        add(tower.parameters(), rate, 0.0)
    add(model.learned.parameters(), HEAD_RATE, 0.0)
    return torch.optim.AdamW(groups, fused=True)


def _feeds(encoder: SentenceTransformer, pairs: Pairs, hidden: float = 0.0) -> list[Feed]:
    """What each tower reads of the questions; `hidden` is the share of tokens that are hidden from it."""
    return [
        Feed(
            token_ids(tower, pairs.questions),
            functools.partial(features, tower),
            word_dropout(tower, hidden) if hidden else None,
        )
        for tower in dict.fromkeys(towers(encoder))
    ]


def _longer(feeds: list[Feed], pairs: Pairs) -> NDArray[np.int64]:
    """(n_pairs,) tokens of the longer question of each pair."""
    tokens = np.fromiter(map(len, feeds[0].ids), np.int64, len(feeds[0].ids))
    return np.maximum(tokens[pairs.left], tokens[pairs.right])


def _in_order(encoder: SentenceTransformer, pairs: Pairs, config: Config) -> Batches:
    """All pairs once, for evaluation."""
    feeds = _feeds(encoder, pairs)
    sampler = in_order(_longer(feeds, pairs), config.batch_size)
    return Batches(pairs, feeds, sampler, sided=not config.symmetric, chunk=_chunk(config, encoder), processes=world())


def _training_batches(encoder: SentenceTransformer, pairs: Pairs, config: Config, partial: Path) -> Batches:
    """The training pairs as the config's sampler has them meet."""
    feeds = _feeds(encoder, pairs, config.word_dropout)
    sampler = pair_sampler(_longer(feeds, pairs), config.batch_size, config.seed)
    if config.sampler == "groups":
        questions = 2 * config.batch_size  # as many as in a batch of pairs
        sampler = group_sampler(graph_of(pairs), questions, min(config.group_size, questions), config.seed)
    elif config.sampler == "triplets":
        sampler = triplet_sampler(sampler, functools.partial(_mine, encoder, feeds, pairs, config, partial))
    sided, chunk = not config.symmetric, _chunk(config, encoder)
    return Batches(pairs, feeds, sampler, sided=sided, chunk=chunk, seed=config.seed, processes=world())


def _chunk(config: Config, encoder: SentenceTransformer) -> int:
    """Questions that are padded together: a GPU wants one large call, a CPU little padding, but in bf16 large calls."""
    if config.gradient_cache or torch.cuda.is_available():
        return config.gradient_cache or 2**20
    return 128 if trains_in_bf16(encoder, config.precision) else 32


def _workers(config: Config) -> int:
    """Processes that make batches ahead of a GPU; mined negatives need the model of this one."""
    return 4 if torch.cuda.is_available() and config.sampler != "triplets" else 0


def _mine(
    encoder: SentenceTransformer, feeds: list[Feed], pairs: Pairs, config: Config, partial: Path, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The mined negatives of an epoch, kept in a file, so that a run that is resumed inside the epoch has the same."""
    kept = partial / f"mined-{epoch}.safetensors"
    with rank_zero_first():
        if not kept.exists():
            each = zip(dict.fromkeys(towers(encoder)), feeds, strict=True)
            embeddings = [embed(tower, feed.ids) for tower, feed in each]
            negatives = nearest_negatives(
                pairs,
                graph_of(pairs).guard.numpy(),
                embeddings[0],
                embeddings[-1],
                count=config.mined,
                relative_margin=config.relative_margin,
                candidates=None if config.symmetric else np.unique(pairs.right),
            )
            fresh = kept.with_suffix(".new")
            save_arrays(dict(zip(("rows", "negatives"), negatives, strict=True)), fresh)
            fresh.replace(kept)
            log.info("epoch %d: %d negatives mined for %d pairs", epoch, len(negatives[0]), len(pairs))
    mined = load_arrays(kept)
    return mined["rows"], mined["negatives"]


def _validation_scores(prediction: EvalPrediction) -> dict[str, float]:
    scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if not np.isfinite(scores).all():
        raise Diverged
    threshold = metrics.best_threshold(scores, labels)
    return {
        "f1": metrics.confusion(scores, labels, threshold).f1,
        "average_precision": metrics.average_precision(scores, labels),
        "collapsed": float(metrics.is_collapsed(scores)),
    }


def _history(logs: list[dict[str, float]], steps_per_epoch: int) -> list[dict[str, Any]]:
    kept = ("loss", "eval_loss", "eval_f1", "eval_average_precision")
    rows = [
        {"step": row["step"], "epoch": row["step"] / steps_per_epoch, **{k: row[k] for k in kept if k in row}}
        for row in logs
    ]
    return [row for row in rows if len(row) > 2]


def judge(
    encoder: SentenceTransformer,
    config: Config,
    parts: Parts,
    history: list[dict[str, Any]],
    head: PairHead | None = None,
) -> Checkpoint:
    """Chooses threshold and calibration on the validation part and reports on it, and on the test part if there is one.

    Args:
        encoder: a trained encoder.
        config: what the run was told.
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
    )
    checkpoint = Checkpoint(encoder, verdict, config, parts.split, history=history, head=head)
    groups = question_components(pairs)[pairs.left]
    on_validation = report(checkpoint, pairs, scores, tables, seed=config.seed).to_dict()
    fair = cross_fitted(scores, pairs.labels, groups)
    on_validation |= {
        "f1_cross_fitted": metrics.confusion(fair, pairs.labels, 0.5).f1,
        "f1_cross_fitted_interval": metrics.bootstrap_interval(fair, pairs.labels, groups, 0.5, seed=config.seed)["f1"],
    }
    found = {"validation": on_validation}
    if parts.test is not None:
        found["test"] = evaluate(checkpoint, parts.test, seed=config.seed).to_dict()
    return dataclasses.replace(checkpoint, scores=found)
