"""The vectors of a teacher for the questions of a run: what `--distill embeddings` and `relations` learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_file
from qpairs.core.manifests import reading_weights
from qpairs.core.progress import Progress
from qpairs.encoders.build import ENCODERS, build_encoder
from qpairs.encoders.tokens import embed, token_ids
from qpairs.encoders.towers import towers
from qpairs.models.base import FILE, load
from qpairs.models.cross_encoder import CrossModel
from qpairs.objectives.distillation import fit_vectors
from qpairs.training.distributed import rank_zero_first
from qpairs.training.run import Run

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def vector_teacher(config: Config) -> Embed | None:
    """From questions to the teacher's unit vectors; None if a run learns no vectors.

    The teacher is a checkpoint, alone or with a reranker, or an export; or an encoder that is ready: minilm, mpnet, a
    Hub id or the folder of a SentenceTransformer.

    Raises:
        UserError: there is no such model, or it has no vectors.
    """
    if not config.teacher or config.distill == "probabilities":
        return None
    (name,) = config.teacher
    if (Path(name) / FILE).exists():
        model = load(name, second_look=False)
        if isinstance(model, CrossModel):
            raise UserError(f"teacher: {name} is a cross-encoder, which has no vectors; use --distill probabilities")
        return lambda questions: model.embed_tables(questions)[0]
    if name in ENCODERS and ENCODERS[name].own_vocabulary:
        raise UserError(f"teacher: {name} must be trained first; name the folder of a checkpoint, minilm or mpnet")
    encoder = towers(build_encoder(name, max_length=config.max_length, seed=config.seed))[0]
    return lambda questions: embed(encoder, token_ids(encoder, list(questions)))


def taught_vectors(run: Run, teacher: Embed, dimension: int) -> NDArray[np.float32]:
    """The teacher's vectors (n_questions, t) for the training questions, kept in the folder of the run.

    Args:
        run: config, data and folder.
        teacher: from `vector_teacher`.
        dimension: of the encoder that learns: vectors to be matched one by one get its length.
    """
    file = run.folder / "teacher-vectors.safetensors"
    with rank_zero_first():
        if not file.exists():
            run.on_progress(Progress("asking the teacher"))
            vectors = np.ascontiguousarray(teacher(run.parts.train.questions), dtype=np.float32)
            if run.config.distill == "embeddings":
                vectors = fit_vectors(vectors, dimension)
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file) as fresh:
                save_file({"vectors": vectors}, fresh)
    with reading_weights(file, "start again with --overwrite"):
        return load_file(file)["vectors"]
