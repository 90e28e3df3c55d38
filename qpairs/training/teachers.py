"""Teachers give a probability for each pair, labelled or not, and an encoder learns from these probabilities.

A cross-encoder, trained on the labelled pairs, scores them and the pairs of nearest questions: Augmented SBERT (Thakur
et al. 2021, section 3), with soft labels (Hinton et al. 2015, section 2). A checkpoint can be a teacher, too, and so
can the encoder itself after a first pass (Furlanello et al. 2018, Born-Again Neural Networks). Several teachers are
combined by the mean of their log odds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from qpairs import metrics
from qpairs.config import Config
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file, atomic_folder, write_text
from qpairs.core.manifests import read_json, reading_weights
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.core.shapes import anything, named, record, text
from qpairs.data.identity import canonical_ids
from qpairs.data.pairs import UNLABELLED, Pairs
from qpairs.data.parts import Parts
from qpairs.encoders.build import ENCODERS, build_encoder
from qpairs.encoders.precision import fast_bf16
from qpairs.encoders.tokens import embed, token_ids
from qpairs.encoders.towers import towers
from qpairs.metrics.logistic import expit
from qpairs.models.base import FILE, RERANKER, Tables, load
from qpairs.models.bi_encoder import Checkpoint, embed_tables
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.pair_reader import read_pairs
from qpairs.models.torch_pairs import TorchPairs, load_cross_encoder
from qpairs.models.two_stages import TwoStages, first_stage
from qpairs.training.cross_models import cross_config, cross_folder, trained_cross_model, warn_of_another_split
from qpairs.training.distributed import rank_zero_first
from qpairs.training.hard_negatives import unlabelled_neighbours
from qpairs.training.names import ITSELF, TRANSFORMERS, cross_encoder_to_train, teachers_to_train
from qpairs.training.passes import NothingKept
from qpairs.training.run import Run

OLD_FILE = "qpairs-teacher.json"  # what older versions wrote beside a cross-encoder, which had no verdict


@dataclass(frozen=True)
class Teacher:
    """A model that scores pairs.

    Attributes:
        model: a cross-encoder, from a pair of texts to a logit; or a checkpoint, alone or with a reranker, with a
            calibrated probability.
        encoder: the encoder that it was trained from; '' if unknown.
        fingerprint: fingerprint of the split that it was trained on; '' if unknown.
    """

    model: CrossEncoder | Checkpoint | TwoStages
    encoder: str = ""
    fingerprint: str = ""


# Folders of teachers


def teacher_of(output: Path) -> Path:
    """The folder of the cross-encoder that a run trains, next to its output: later runs can learn from it."""
    return output.with_name(f"{output.name}-teacher")


def load_teachers(config: Config, *, overwrite: bool) -> dict[str, Teacher]:
    """The teachers of a config that are not trained in the run, by name.

    Args:
        config: `teacher` and `output` are read.
        overwrite: whether the run may replace a cross-encoder that an earlier run trained.

    Raises:
        UserError: a teacher cannot be loaded, or the folder for the one to train exists.
    """
    trained = teachers_to_train(config.probability_teachers)
    folder = teacher_of(Path(config.output))
    ours = any((folder / name).exists() for name in (FILE, OLD_FILE))
    if teacher_to_keep(config) and folder.exists() and not (overwrite and ours):
        raise UserError(f"{folder}: exists already; learn from it with --teacher {folder}, or pass --overwrite")
    return {name: load_teacher(name) for name in config.probability_teachers if name not in trained}


def load_teacher(name: str) -> Teacher:
    """A teacher from a folder or the Hub: any cross-encoder, or a folder with a checkpoint.

    Raises:
        UserError: there is none, or it does not give one logit for a pair.
    """
    if (Path(name) / FILE).exists():
        model = load(name)
        about = model.config.encoder, model.split.get("fingerprint", "")
        if isinstance(model, CrossModel):
            return Teacher(load_cross_encoder(name), *about)
        if isinstance(model, Checkpoint) or (isinstance(model, TwoStages) and isinstance(model.first, Checkpoint)):
            return Teacher(model, *about)
        raise UserError(f"teacher: {name} is an export; name the checkpoint that it was made from")
    try:
        cross_encoder = load_cross_encoder(name, local=Path(name).exists() or not _on_hub(name))
        shape, old = record({}, {"encoder": text, "fingerprint": text}, others=True), Path(name) / OLD_FILE
        about = read_json(old, shape, missing="") if old.exists() else {}
    except (UserError, ValueError) as error:
        known = nearest(name, (*TRANSFORMERS, ITSELF))
        raise UserError(f"teacher: {error}; {known}, a checkpoint or a CrossEncoder") from error
    return Teacher(cross_encoder, about.get("encoder", ""), about.get("fingerprint", ""))


def _on_hub(name: str) -> bool:
    """Whether the Hub can be reached and has a model; sentence-transformers would retry for half a minute."""
    try:
        HfApi().model_info(name, timeout=10)
    except Exception:  # whatever the HTTP client of the day raises
        return False
    return True


def trained_teacher(run: Run) -> Teacher:
    """The cross-encoder that a run trains; an interrupted training is resumed, a finished one loaded.

    Raises:
        UserError: its loss became NaN.
    """
    name = cross_encoder_to_train(run.config.probability_teachers)
    output = Path(run.config.output) / RERANKER if name == run.config.reranker else teacher_of(Path(run.config.output))
    config = dataclasses.replace(cross_config(run.config, name, run.config.teacher_epochs), output=str(output))
    with contextlib.suppress(NothingKept):
        model, diverged = trained_cross_model(dataclasses.replace(run, config=config), stage="training the teacher")
        if not diverged:
            return load_teacher(str(model.path))
    shutil.rmtree(run.folder, ignore_errors=True)
    raise UserError("teacher: its loss became NaN; nothing was saved; try another --seed")


def teacher_to_keep(config: Config) -> str:
    """The transformer of the cross-encoder kept next to a run's output; '' if that is the reranker in it."""
    name = cross_encoder_to_train(config.probability_teachers)
    return "" if name == config.reranker else name


def keep_teacher(run: Run) -> None:
    """Copies the cross-encoder of a run, if it trained one, from the unfinished run to a folder next to the output."""
    if name := teacher_to_keep(run.config):
        with atomic_folder(teacher_of(Path(run.config.output))) as fresh:
            shutil.copytree(cross_folder(run, name), fresh, dirs_exist_ok=True)


# Asking teachers


def ask_teachers(run: Run, teachers: Mapping[str, Teacher], encoder: SentenceTransformer) -> Parts:
    """The parts of a run; the training pairs get the teachers' probabilities, and pairs of nearest questions are added.

    Trained teacher and probabilities are kept in the folder of the run, so that a resumed run repeats nothing.

    Args:
        run: config, data and folder.
        teachers: the existing ones, by name, without the cross-encoder to train.
        encoder: the encoder of the run, before its training.
    """
    probabilities, about = run.folder / "taught.safetensors", run.folder / "teacher.json"
    with rank_zero_first():
        if not about.exists():
            if name := cross_encoder_to_train(run.config.probability_teachers):
                teachers = {**teachers, name: trained_teacher(run)}
            asked = {name: teachers[name] for name in run.config.probability_teachers}
            train, summary = _answers(run, asked, encoder)
            arrays = {name: getattr(train, name) for name in ("left", "right", "labels", "taught")}
            with atomic_file(probabilities) as fresh:
                save_file(arrays, fresh)
            write_text(about, json.dumps(summary))
    with reading_weights(probabilities, "start again with --overwrite"):
        kept = load_file(probabilities)
        train = Pairs(run.parts.train.questions, kept["left"], kept["right"], kept["labels"], taught=kept["taught"])
    summary = read_json(about, named(anything), missing=f"{about}: missing", mend="start again with --overwrite")
    split = {**run.parts.split, "teacher": summary}
    return dataclasses.replace(run.parts, train=train, split=split)


def _answers(
    run: Run, teachers: Mapping[str, Teacher], encoder: SentenceTransformer
) -> tuple[Pairs, dict[str, bool | float]]:
    """The training pairs with probabilities, and what the checkpoint says about the teachers."""
    parts, asked = run.parts, list(teachers.values())
    foreign = [name for name, teacher in teachers.items() if teacher.fingerprint != parts.split["fingerprint"]]
    for name in foreign:
        warn_of_another_split(f"teacher: {name}")
    made_from = next((t.encoder for t in asked if isinstance(t.model, CrossEncoder)), "")
    if made_from in ENCODERS and made_from != run.config.encoder:
        encoder = build_encoder(made_from, texts=parts.train.questions, seed=run.config.seed)
    train = add_probabilities(parts.train, asked, towers(encoder)[0], run.config.neighbours, run.on_progress)
    summary: dict[str, bool | float] = {"same_split": not foreign, "neighbours": len(train) - len(parts.train)}
    return train, summary if run.config.without_labels else {**summary, **teacher_scores(asked, parts.validation)}


def teacher_scores(teachers: Sequence[Teacher], validation: Pairs) -> dict[str, float]:
    """F1, at the best threshold, and average precision of all teachers together on labelled pairs."""
    probability, labels = probabilities_of(teachers, validation), validation.labels
    return {
        "f1": metrics.confusion(probability, labels, metrics.best_threshold(probability, labels)).f1,
        "average_precision": metrics.average_precision(probability, labels),
    }


def probabilities_of(
    teachers: Sequence[Teacher],
    pairs: Pairs,
    on_progress: OnProgress = ignore,
    *,
    both_orders: bool = True,
    tables: Mapping[int, Tables] | None = None,
) -> NDArray[np.float32]:
    """The probability (n_pairs,) that each pair is of duplicates, by the mean of the teachers' log odds.

    Args:
        teachers: at least one.
        pairs: labelled or not.
        on_progress: called while a cross-encoder reads the pairs.
        both_orders: a cross-encoder's log odds are the mean over both orders of a pair; or, in half the time, those of
            the given order.
        tables: position of a checkpoint among the teachers -> its embeddings of the questions, if known.
    """
    odds: list[NDArray[np.floating[Any]]] = []
    tables = tables or {}
    for place, teacher in enumerate(teachers):
        model = teacher.model
        if isinstance(model, Checkpoint | TwoStages):
            embedded = tables[place] if place in tables else _embedded(model, pairs)
            odds.append(model.verdict.pair.log_odds(model.score_tables(embedded, pairs)))
        else:
            reader, texts = TorchPairs(model, both_orders=both_orders), [pairs.texts(row) for row in range(len(pairs))]
            odds.append(read_pairs(reader, texts, on_progress, "asking the teachers"))
    return np.asarray(expit(np.mean(odds, axis=0)), dtype=np.float32)


def _embedded(model: Checkpoint | TwoStages, pairs: Pairs) -> Tables:
    checkpoint = first_stage(model)
    assert isinstance(checkpoint, Checkpoint)
    encoder = checkpoint.encoder
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=fast_bf16(towers(encoder)[0])):
        return embed_tables(encoder, pairs.questions)


def add_probabilities(
    train: Pairs,
    teachers: Sequence[Teacher],
    encoder: SentenceTransformer,
    neighbours: int,
    on_progress: OnProgress = ignore,
) -> Pairs:
    """The training pairs and the pairs of nearest questions, with the teachers' probability of each.

    The probability of a labelled pair is the mean of its label and the teachers'; that of an unlabelled one is theirs.

    Args:
        train: labelled pairs.
        teachers: at least one.
        encoder: its embeddings say which questions are near, if no teacher is a checkpoint.
        neighbours: number of nearest questions of each question; pairs with a label are left out.
        on_progress: called while the teachers are asked.
    """
    Meter(on_progress).begin("asking the teachers", len(train))
    tables = {
        place: _embedded(teacher.model, train)
        for place, teacher in enumerate(teachers)
        if isinstance(teacher.model, Checkpoint | TwoStages)
    }
    embeddings = np.empty((0, 1), np.float32)
    if neighbours and tables:
        embeddings = next(iter(tables.values()))[0]
    elif neighbours:
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=fast_bf16(encoder)):
            embeddings = embed(encoder, token_ids(encoder, train.questions))
    near = unlabelled_neighbours(train, canonical_ids(train.questions), embeddings, neighbours)
    both = replace(
        train,
        left=np.concatenate([train.left, near[:, 0]]),
        right=np.concatenate([train.right, near[:, 1]]),
        labels=np.concatenate([train.labels, np.full(len(near), UNLABELLED, np.int8)]),
        grades=None,
    )
    probability = probabilities_of(teachers, both, on_progress, both_orders=False, tables=tables)
    labels = both.labels.astype(np.float32)
    if train.grades is not None:
        labels[: len(train)] = train.grades
    return replace(both, taught=np.where(both.labels == UNLABELLED, probability, (labels + probability) / 2))
