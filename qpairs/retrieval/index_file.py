"""From a file of questions to an index of them, in one folder: existing parts are reused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.files import write_text
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.question_file import QuestionFile
from qpairs.models.base import Model
from qpairs.retrieval.embed import OtherEmbeddings, embed
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.index import FILE, build_index

INDEXED = "indexed.json"  # the plan of the embeddings that are indexed
BEGUN = "null"  # what it says while an index is made


def default_folder(questions: Path) -> Path:
    """The folder for what is made of a file, where none is named.

    >>> default_folder(Path("data/tickets.csv")).as_posix()
    'tickets-qpairs'
    """
    return Path(f"{questions.stem}-qpairs")


def embeddings_folder(folder: Path) -> Path:
    """The embeddings in the folder of a file."""
    return folder / "embeddings"


def index_folder(folder: Path) -> Path:
    """The index in the folder of a file."""
    return folder / "index"


def index_file(
    model: Model, questions: QuestionFile, folder: Path, *, renew: bool = False, on_progress: OnProgress = ignore
) -> Embeddings:
    """Embeds and indexes a file of questions, as `qpairs embed` and `qpairs index` do, where that is not done.

    Args:
        model: or its folder.
        questions: the file.
        folder: gets the folders `embeddings` and `index`.
        renew: whether both may be rebuilt if the folder has those of other questions or of another model.
        on_progress: as in `embed` and `build_index`.

    Raises:
        UserError: a file or a folder cannot be used, several questions have one id, or the folder has those of other
            questions.
    """
    try:
        made = embed(
            model,
            questions.path,
            embeddings_folder(folder),
            **questions.options,
            distinct_ids=True,
            overwrite=renew,
            on_progress=on_progress,
        )
    except OtherEmbeddings as error:
        differ = ", ".join(error.differ)
        raise UserError(
            f"{folder}: was made with another {differ}; remove embeddings and index in it to create them again"
        ) from None
    plan, note = json.dumps(asdict(made.plan)), folder / INDEXED
    there = (index_folder(folder) / FILE).exists()
    if there and note.exists() and note.read_bytes() == plan.encode():
        return made
    begun = note.exists() and note.read_text("utf-8", "replace") == BEGUN  # by a run that was killed
    if there and not (renew or begun):
        raise UserError(f"{index_folder(folder)}: an index of other questions; remove it, or use another folder")
    write_text(note, BEGUN)
    build_index(made, index_folder(folder), overwrite=True, on_progress=on_progress)
    write_text(note, plan)
    return made
