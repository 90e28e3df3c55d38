"""Teachers: a cross-encoder reads both questions of a pair at once, and judges pairs that nobody labelled.

A cross-encoder is more often right than an encoder of single questions, and far too slow to search with. Here it is
trained on the labelled pairs, then judges them and the nearest questions besides, and an encoder learns from its
probabilities: Augmented SBERT (Thakur et al. 2021, section 3), with soft labels (Hinton et al. 2015, section 2).
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import Tensor, nn
from torch.nn import functional
from transformers import PrinterCallback, Trainer

from qpairs import metrics
from qpairs.batches import Sampler, pair_sampler
from qpairs.checkpoint import FILE as CHECKPOINT
from qpairs.config import Config
from qpairs.dropout import set_dropout
from qpairs.encoders import ENCODERS, build_encoder, embed, token_ids
from qpairs.faults import UserError, nearest
from qpairs.folders import folder_beside
from qpairs.loop import Diverged, Observer, Progress, fast_bf16, linear_schedule, only_item, states, trainer_arguments
from qpairs.mining import unlabelled_neighbours
from qpairs.pairs import UNLABELLED, Pairs
from qpairs.splits import canonical_ids

FILE = "qpairs-teacher.json"
TRANSFORMERS = ("minilm", "tiny")  # among `encoders.ENCODERS`: a teacher can be trained from these
RATES = {"tiny": 5e-4}  # learning rates of cross-encoders that come untrained
RATE = 1e-4  # of one that comes trained
HEAD_RATE = 1e-3
STATES = 4  # kept of a teacher's training, one after the other
JUDGED = 64  # pairs in a batch that is judged


@dataclass(frozen=True)
class Teacher:
    """A cross-encoder, and what is known of it.

    Attributes:
        model: a pair of texts -> a logit.
        encoder: the encoder that it was made from; '' where that is not known.
        fingerprint: of the split that it was trained on; '' where that is not known.
    """

    model: CrossEncoder
    encoder: str = ""
    fingerprint: str = ""


def trained_here(name: str) -> bool:
    """Whether a config's `teacher` names an encoder to train one from, and not a teacher that is there already.

    Raises:
        UserError: the encoder is no transformer.
    """
    if name in ENCODERS and name not in TRANSFORMERS:
        raise UserError(f"teacher: {name} is no transformer, so it cannot read two questions at once; use minilm")
    return name in TRANSFORMERS


def check_teacher_output(path: Path, *, overwrite: bool) -> None:
    """Raises UserError where a teacher cannot be written to `path`, before any work is done."""
    if path.exists() and not (overwrite and (path / FILE).exists()):
        raise UserError(f"{path}: is there already; learn from it with --teacher {path}, or pass --overwrite")


def new_teacher(name: str, *, texts: Sequence[str], max_length: int, seed: int) -> CrossEncoder:
    """A cross-encoder over an encoder's transformer: first token and mean of all tokens, and a linear map to a logit.

    Args:
        name: one of `TRANSFORMERS`.
        texts: the training questions, from which `tiny` makes its vocabulary.
        max_length: tokens of a question that are read; a pair may have twice as many.
        seed: of the random weights.

    Raises:
        UserError: a model or package that is missing or broken.
    """
    encoder = build_encoder(name, texts=texts, max_length=2 * max_length, seed=seed)
    transformer: Any = encoder[0]
    pooling = Pooling(transformer.get_embedding_dimension(), ["cls", "mean"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dimension = pooling.get_embedding_dimension()
        head = Dense(dimension, 1, activation_function=nn.Identity(), module_output_name="scores")
    modules = [transformer, pooling, head]
    model: CrossEncoder = CrossEncoder(modules=modules, device=str(encoder.device), num_labels=1)
    return model


def load_teacher(name: str) -> Teacher:
    """A teacher from a folder, one that was written here or any CrossEncoder's, or from the Hub.

    Raises:
        UserError: there is none, or it does not give one logit for a pair.
    """
    if (Path(name) / CHECKPOINT).exists():
        raise UserError(
            f"teacher: {name} is a checkpoint; the teacher that a run trains lies beside it, in NAME-teacher"
        )
    try:
        model = CrossEncoder(name, model_kwargs={"dtype": torch.float32, "use_safetensors": True})
        about = json.loads((Path(name) / FILE).read_text("utf-8")) if (Path(name) / FILE).exists() else {}
    except Exception as error:  # no network, missing files, broken JSON, foreign classes, tensors that don't fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = nearest(name, TRANSFORMERS)
        raise UserError(f"teacher: cannot load {name!r} ({reason}); {known}, or a CrossEncoder") from error
    if model.num_labels != 1:
        raise UserError(f"teacher: {name} gives {model.num_labels} numbers for a pair; one, a logit, is needed")
    return Teacher(model, about.get("encoder", ""), about.get("fingerprint", ""))


def save_teacher(teacher: Teacher, path: Path) -> None:
    """Writes a teacher beside its place and renames it there; `CrossEncoder(path)` loads it."""
    with folder_beside(path) as fresh:
        teacher.model.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
        about = {"encoder": teacher.encoder, "fingerprint": teacher.fingerprint}
        (fresh / FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


class _Pupil(nn.Module):
    """A cross-encoder and its loss, as one module that the Trainer can call."""

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The cross-entropy of a batch of pairs, features (k, tokens) each, labels (k,)."""
        logits = self.model(features)["scores"].float().view(-1)  # (k,)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        if loss.device.type == "cpu" and not torch.isfinite(loss):
            raise Diverged
        return {"loss": loss}


class _Lessons:
    """A map-style dataset whose item i is the batch of step i: pairs of similar length, each in a random order."""

    def __init__(self, model: CrossEncoder, pairs: Pairs, sampler: Sampler, steps: int, seed: int) -> None:
        self.model, self.pairs, self.steps, self.seed = model, pairs, steps, seed
        self.plan = functools.lru_cache(maxsize=1)(sampler)
        self.steps_per_epoch = len(sampler(0))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self.plan(epoch)[place].pairs
        turned = np.random.default_rng([self.seed, step]).random(len(rows)) < 0.5
        pairs = [self.pairs.texts(row)[:: -1 if turn else 1] for row, turn in zip(rows, turned, strict=True)]
        labels = torch.from_numpy(self.pairs.labels[rows].astype(np.float32))
        return {"features": dict(self.model.preprocess(pairs)), "labels": labels}


def train_teacher(
    config: Config,
    train: Pairs,
    fingerprint: str,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> Teacher:
    """Trains a cross-encoder on labelled pairs, by cross-entropy.

    Args:
        config: `teacher`, `teacher_epochs`, batch size, dropout, warm-up, clipping, precision and seed are read.
        train: labelled pairs.
        fingerprint: of the split.
        folder: where its states are kept; training goes on from the last that is there.
        on_progress: called at every step.

    Raises:
        UserError: the encoder cannot be had.
        Diverged: the loss became NaN.
    """
    model = new_teacher(config.teacher, texts=train.questions, max_length=config.max_length, seed=config.seed)
    tokens = np.fromiter(map(len, model.tokenizer(list(train.questions)).input_ids), np.int64, len(train.questions))
    sampler = pair_sampler(tokens[train.left] + tokens[train.right], config.batch_size, config.seed)
    steps_per_epoch = len(sampler(0))
    steps = max(1, math.ceil(steps_per_epoch * config.teacher_epochs))
    set_dropout(model, config.dropout)
    own, head = list(model[0].parameters()), list(model[-1].parameters())
    rate = RATES.get(config.teacher, RATE)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in own if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay},
            {"params": [p for p in own if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
            {"params": head, "lr": HEAD_RATE, "weight_decay": 0.0},
        ],
        fused=True,
    )
    trainer = Trainer(
        model=_Pupil(model),
        args=trainer_arguments(config, model, folder, steps, -(-steps // STATES), eval_strategy="no", report_to="none"),
        data_collator=only_item,
        train_dataset=_Lessons(model, train, sampler, steps, config.seed),
        callbacks=[Observer(replace(config, budget_minutes=0.0), steps_per_epoch, on_progress, "teacher")],
        optimizers=(optimizer, linear_schedule(optimizer, steps, config.warmup)),
    )
    trainer.remove_callback(PrinterCallback)
    whole = states(folder)
    trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)
    return Teacher(model, config.teacher, fingerprint)


def scores_on(model: CrossEncoder, validation: Pairs) -> dict[str, float]:
    """How good a teacher is: its f1, at the best threshold, and average_precision on labelled pairs."""
    thinks, labels = judge_pairs(model, validation), validation.labels
    return {
        "f1": metrics.confusion(thinks, labels, metrics.best_threshold(thinks, labels)).f1,
        "average_precision": metrics.average_precision(thinks, labels),
    }


def judge_pairs(
    model: CrossEncoder,
    pairs: Pairs,
    on_progress: Callable[[Progress], None] | None = None,
    both_orders: bool = True,
) -> NDArray[np.float32]:
    """The probability (n_pairs,) that each pair is of duplicates.

    Args:
        model: a cross-encoder that gives one logit.
        pairs: labelled or not.
        on_progress: called now and then.
        both_orders: take the mean logit of both orders of a pair; or, in half the time, that of the given one.
    """
    start, logits = time.monotonic(), [np.empty(0, np.float32)]
    with torch.autocast(model.device.type, torch.bfloat16, enabled=fast_bf16(model)):
        for first in range(0, len(pairs), JUDGED * 64):
            texts = [pairs.texts(row) for row in range(first, min(first + JUDGED * 64, len(pairs)))]
            asked = [*texts, *(pair[::-1] for pair in texts)] if both_orders else texts
            scores = model.predict(asked, batch_size=JUDGED, activation_fn=nn.Identity(), show_progress_bar=False)
            logits.append(scores.reshape(-1, len(texts)).mean(axis=0))
            done = first + len(texts)
            if on_progress:
                rate = done / max(1e-9, time.monotonic() - start)
                on_progress(Progress(done, len(pairs), 0.0, rate, phase="judging"))
    return np.asarray(expit(np.concatenate(logits)), dtype=np.float32)


def taught_pairs(
    teacher: Teacher,
    searcher: SentenceTransformer,
    train: Pairs,
    neighbours: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Pairs:
    """The training pairs and the nearest questions besides, with what a teacher thinks of each.

    A labelled pair's probability is the mean of its label and the teacher's own; a neighbour's is the teacher's.

    Args:
        teacher: the teacher.
        searcher: an encoder whose embeddings say which questions are near.
        train: labelled pairs.
        neighbours: of each question; those that a label stands between are left out.
        on_progress: called now and then.
    """
    embeddings = np.empty((0, 1), np.float32)
    if neighbours:
        with torch.autocast(searcher.device.type, torch.bfloat16, enabled=fast_bf16(searcher)):
            embeddings = embed(searcher, token_ids(searcher, train.questions))
    near = unlabelled_neighbours(train, canonical_ids(train.questions), embeddings, neighbours)
    more = Pairs(train.questions, near[:, 0], near[:, 1], np.full(len(near), UNLABELLED, np.int8))
    both = replace(
        train,
        left=np.concatenate([train.left, more.left]),
        right=np.concatenate([train.right, more.right]),
        labels=np.concatenate([train.labels, more.labels]),
    )
    thinks = judge_pairs(teacher.model, both, on_progress, both_orders=False)
    labels = both.labels.astype(np.float32)
    return replace(both, taught=np.where(both.labels == UNLABELLED, thinks, (labels + thinks) / 2))
