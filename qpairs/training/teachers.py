"""Teachers judge pairs, labelled or not, and an encoder learns from their probabilities.

A cross-encoder reads both questions of a pair at once, and is far too slow to search with. Here it is trained on the
labelled pairs, then judges them and the nearest questions besides: Augmented SBERT (Thakur et al. 2021, section 3),
with soft labels (Hinton et al. 2015, section 2). A checkpoint teaches, too, and the encoder itself after a first pass
(Furlanello et al. 2018, Born-Again Neural Networks); of several teachers, the mean log odds count.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi
from numpy.typing import NDArray
from scipy.special import expit
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from torch import Tensor, nn
from torch.nn import functional
from transformers import PrinterCallback, Trainer

from qpairs import metrics
from qpairs.config import Config
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_folder
from qpairs.data.pairs import UNLABELLED, Pairs
from qpairs.data.splits import canonical_ids
from qpairs.encoders.build import ENCODERS, build_encoder
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.precision import fast_bf16
from qpairs.encoders.tokens import embed, token_ids
from qpairs.encoders.towers import towers
from qpairs.models.base import FILE as CHECKPOINT
from qpairs.models.base import Tables
from qpairs.models.bi_encoder import Checkpoint, embed_tables, load_checkpoint
from qpairs.training.batches import Sampler, pair_sampler
from qpairs.training.hard_negatives import unlabelled_neighbours
from qpairs.training.trainer import Diverged, Observer, Progress, linear_schedule, only_item, states, trainer_arguments

FILE = "qpairs-teacher.json"
TRANSFORMERS = ("minilm", "tiny")  # among `encoders.ENCODERS`: a cross-encoder can be trained from these
ITSELF = "itself"  # the name of the teacher that is the encoder after a first pass over the labels
RATES = {"tiny": 5e-4}  # learning rates of cross-encoders that come untrained
RATE = 1e-4  # of one that comes trained
HEAD_RATE = 1e-3
STATES = 4  # kept of a teacher's training, one after the other
JUDGED = 64  # pairs in a batch that is judged


@dataclass(frozen=True)
class Teacher:
    """What judges pairs, and what is known of it.

    Attributes:
        model: a cross-encoder, a pair of texts -> a logit; or a checkpoint, which has a calibrated probability.
        encoder: the encoder that it was made from; '' where that is not known.
        fingerprint: of the split that it was trained on; '' where that is not known.
    """

    model: CrossEncoder | Checkpoint
    encoder: str = ""
    fingerprint: str = ""


def trained_here(names: Sequence[str]) -> tuple[str, ...]:
    """Those of a config's `teacher` that a run trains itself, and that are not there already.

    Raises:
        UserError: an encoder that is no transformer, a name that stands there twice, or two cross-encoders to train.
    """
    found = tuple(name for name in names if name in (*TRANSFORMERS, ITSELF))
    for name in names:
        if name in ENCODERS and name not in found:
            raise UserError(f"teacher: {name} is no transformer, so it cannot read two questions at once; use minilm")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"teacher: {name} is named twice; each is heard once")
    if len(found) - found.count(ITSELF) > 1:
        raise UserError(f"teacher: one cross-encoder is trained, not several ({', '.join(found)})")
    return found


def cross_encoder_of(names: Sequence[str]) -> str:
    """The transformer that a run makes a cross-encoder of; '' where it trains none.

    Raises:
        UserError: as `trained_here`.
    """
    return next((name for name in trained_here(names) if name != ITSELF), "")


def check_teacher_output(path: Path, *, overwrite: bool) -> None:
    """Raises UserError where a teacher cannot be written to `path`, before any work is done."""
    if path.exists() and not (overwrite and (path / FILE).exists()):
        raise UserError(f"{path}: is there already; learn from it with --teacher {path}, or pass --overwrite")


def new_cross_encoder(name: str, *, texts: Sequence[str], max_length: int, seed: int) -> CrossEncoder:
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
    """A teacher from a folder: one that was written here, a checkpoint, or any CrossEncoder's; or one from the Hub.

    Raises:
        UserError: there is none, or it does not give one logit for a pair.
    """
    if (Path(name) / CHECKPOINT).exists():
        checkpoint = load_checkpoint(name)
        return Teacher(checkpoint, checkpoint.config.encoder, checkpoint.split.get("fingerprint", ""))
    try:
        local = Path(name).exists() or not _on_hub(name)
        model = CrossEncoder(
            name, local_files_only=local, model_kwargs={"dtype": torch.float32, "use_safetensors": True}
        )
        about = json.loads((Path(name) / FILE).read_text("utf-8")) if (Path(name) / FILE).exists() else {}
    except Exception as error:  # no network, missing files, broken JSON, foreign classes, tensors that don't fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = nearest(name, (*TRANSFORMERS, ITSELF))
        raise UserError(f"teacher: cannot load {name!r} ({reason}); {known}, a checkpoint or a CrossEncoder") from error
    if model.num_labels != 1:
        raise UserError(f"teacher: {name} gives {model.num_labels} numbers for a pair; one, a logit, is needed")
    return Teacher(model, about.get("encoder", ""), about.get("fingerprint", ""))


def _on_hub(name: str) -> bool:
    """Whether the Hub can be reached and has a model; sentence-transformers would try again for half a minute."""
    try:
        HfApi().model_info(name, timeout=10)
    except Exception:  # whatever the HTTP client of the day raises
        return False
    return True


def save_cross_encoder(model: CrossEncoder, path: Path, *, encoder: str, fingerprint: str) -> None:
    """Writes a cross-encoder beside its place and renames it there; `CrossEncoder(path)` loads it.

    Args:
        model: what to write.
        path: the folder.
        encoder: what it was made from.
        fingerprint: of the split that it was trained on.
    """
    with atomic_folder(path) as fresh:
        model.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
        about = {"encoder": encoder, "fingerprint": fingerprint}
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


def train_cross_encoder(
    config: Config,
    train: Pairs,
    folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> CrossEncoder:
    """Trains a cross-encoder on labelled pairs, by cross-entropy.

    Args:
        config: `teacher`, `teacher_epochs`, batch size, dropout, warm-up, clipping, precision and seed are read.
        train: labelled pairs.
        folder: where its states are kept; training goes on from the last that is there.
        on_progress: called at every step.

    Raises:
        UserError: the encoder cannot be had.
        Diverged: the loss became NaN.
    """
    name = cross_encoder_of(config.teacher)
    model = new_cross_encoder(name, texts=train.questions, max_length=config.max_length, seed=config.seed)
    tokens = np.fromiter(map(len, model.tokenizer(list(train.questions)).input_ids), np.int64, len(train.questions))
    sampler = pair_sampler(tokens[train.left] + tokens[train.right], config.batch_size, config.seed)
    steps_per_epoch = len(sampler(0))
    steps = max(1, math.ceil(steps_per_epoch * config.teacher_epochs))
    set_dropout(model, config.dropout)
    own, head = list(model[0].parameters()), list(model[-1].parameters())
    rate = RATES.get(name, RATE)
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
    return model


def scores_on(teachers: Sequence[Teacher], validation: Pairs) -> dict[str, float]:
    """How good teachers are together: their f1, at the best threshold, and average_precision on labelled pairs."""
    thinks, labels = judge_pairs(teachers, validation), validation.labels
    return {
        "f1": metrics.confusion(thinks, labels, metrics.best_threshold(thinks, labels)).f1,
        "average_precision": metrics.average_precision(thinks, labels),
    }


def judge_pairs(
    teachers: Sequence[Teacher],
    pairs: Pairs,
    on_progress: Callable[[Progress], None] | None = None,
    both_orders: bool = True,
    tables: Mapping[int, Tables] | None = None,
) -> NDArray[np.float32]:
    """The probability (n_pairs,) that each pair is of duplicates, by the mean of the teachers' log odds.

    Args:
        teachers: one at least.
        pairs: labelled or not.
        on_progress: called now and then.
        both_orders: a cross-encoder's log odds are the mean over both orders of a pair; or, in half the time, those of
            the given one.
        tables: place of a checkpoint among the teachers -> its embeddings of the questions, where they are known.
    """
    odds, tables = [], tables or {}
    for place, teacher in enumerate(teachers):
        model = teacher.model
        if isinstance(model, Checkpoint):
            embedded = tables[place] if place in tables else _embedded(model, pairs)
            odds.append(model.verdict.pair.calibration.log_odds(model.score_tables(embedded, pairs)))
        else:
            odds.append(_log_odds(model, pairs, on_progress, both_orders))
    return np.asarray(expit(np.mean(odds, axis=0)), dtype=np.float32)


def _embedded(checkpoint: Checkpoint, pairs: Pairs) -> Tables:
    encoder = checkpoint.encoder
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=fast_bf16(towers(encoder)[0])):
        return embed_tables(encoder, pairs.questions)


def _log_odds(
    model: CrossEncoder, pairs: Pairs, on_progress: Callable[[Progress], None] | None, both_orders: bool
) -> NDArray[np.float64]:
    start, logits = time.monotonic(), [np.empty(0, np.float64)]
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
    return np.concatenate(logits)


def taught_pairs(
    teachers: Sequence[Teacher],
    searcher: SentenceTransformer,
    train: Pairs,
    neighbours: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Pairs:
    """The training pairs and the nearest questions besides, with what the teachers think of each.

    A labelled pair's probability is the mean of its label and the teachers' own; a neighbour's is the teachers'.

    Args:
        teachers: one at least.
        searcher: an encoder whose embeddings say which questions are near, where no teacher is a checkpoint.
        train: labelled pairs.
        neighbours: of each question; those that a label stands between are left out.
        on_progress: called now and then.
    """
    if on_progress:
        on_progress(Progress(0, len(train), 0.0, 0.0, phase="judging"))
    tables = {
        place: _embedded(teacher.model, train)
        for place, teacher in enumerate(teachers)
        if isinstance(teacher.model, Checkpoint)
    }
    embeddings = np.empty((0, 1), np.float32)
    if neighbours and tables:
        embeddings = next(iter(tables.values()))[0]
    elif neighbours:
        with torch.autocast(searcher.device.type, torch.bfloat16, enabled=fast_bf16(searcher)):
            embeddings = embed(searcher, token_ids(searcher, train.questions))
    near = unlabelled_neighbours(train, canonical_ids(train.questions), embeddings, neighbours)
    both = replace(
        train,
        left=np.concatenate([train.left, near[:, 0]]),
        right=np.concatenate([train.right, near[:, 1]]),
        labels=np.concatenate([train.labels, np.full(len(near), UNLABELLED, np.int8)]),
    )
    thinks = judge_pairs(teachers, both, on_progress, both_orders=False, tables=tables)
    labels = both.labels.astype(np.float32)
    return replace(both, taught=np.where(both.labels == UNLABELLED, thinks, (labels + thinks) / 2))
