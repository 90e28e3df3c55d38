"""The cross-encoders of a run: trained, evaluated, and kept in its folder, so that a resumed run trains none twice."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from typing import Any

from sentence_transformers import CrossEncoder

from qpairs.config import CROSS_ENCODER, ENCODER_ALONE, OPTIONS, Config
from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_folder
from qpairs.models.base import FILE, load
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.torch_pairs import open_torch_pairs
from qpairs.training.cross_encoder import cross_encoder_of, fit_cross_encoder
from qpairs.training.distributed import barrier, rank, world
from qpairs.training.judge import judge_cross_encoder
from qpairs.training.names import TRANSFORMERS, check_transformer
from qpairs.training.run import Run

log = logging.getLogger(__name__)

ENOUGH_PAIRS = 30_000  # that a cross-encoder reads in its training


def cross_config(config: Config, encoder: str, epochs: float) -> Config:
    """The config of a cross-encoder that is trained besides an encoder: own learning rate, and no budget.

    Args:
        config: that of the encoder's run.
        encoder: the name of its transformer.
        epochs: passes over the training pairs.

    >>> cross_config(Config(loss="cosent", learning_rate=1.0, seed=3), "tiny", 2.0).learning_rate is None
    True
    """
    own: dict[str, Any] = {name: OPTIONS[name].default for name in (*ENCODER_ALONE, "learning_rate", "budget_minutes")}
    return dataclasses.replace(config, **own, model=CROSS_ENCODER, encoder=encoder, epochs=epochs)


def passes_for(pairs: int) -> float:
    """The passes of a cross-encoder over the training pairs: enough for `ENOUGH_PAIRS` pairs, 1 to 4.

    It starts without any knowledge of pairs: on the bundled 6,664 pairs, one pass of MiniLM gave an average precision
    of 0.67 on validation, four gave 0.77; on 78,396 Quora pairs, a second pass made it worse (`docs/lab_book.md`).

    >>> passes_for(6_000), passes_for(12_000), passes_for(100_000)
    (4.0, 3.0, 1.0)
    """
    return float(min(max(math.ceil(ENOUGH_PAIRS / max(pairs, 1)), 1), 4))


def cross_folder(run: Run, encoder: str) -> Path:
    """The folder in which a run keeps the cross-encoder that it has trained from an encoder."""
    name = "".join(c if c.isalnum() else "-" for c in encoder)
    return run.folder / f"trained-{name}"


def trained_cross_model(run: Run, model: CrossEncoder | None = None, stage: str = "training") -> tuple[CrossModel, str]:
    """The cross-encoder of a run's config: trained and evaluated, or resumed, or loaded if that is done.

    Args:
        run: its config is that of the cross-encoder, its folder that of the whole run.
        model: what is trained, if it is already built.
        stage: what progress calls it.

    Returns:
        The cross-encoder; and what happened if the loss became NaN and the last good state was evaluated, else ''.

    Raises:
        NothingKept: the loss became NaN before the first state was kept.
    """
    folder, diverged = cross_folder(run, run.config.encoder), ""
    if not folder.exists():
        states = run.folder / f"{folder.name}-states"
        model = model or cross_encoder_of(run.config, run.parts.train)
        fitted = fit_cross_encoder(dataclasses.replace(run, folder=states), model, stage)
        diverged = fitted.diverged
        if rank() == 0:
            with atomic_folder(folder) as fresh:
                # Its tokenizer is saved as it was called last; in a resumed run it may not have been called at all.
                fitted.model.predict([("", "")], show_progress_bar=False)
                fitted.model.save_pretrained(str(fresh), create_model_card=False, safe_serialization=True)
                reader = open_torch_pairs(fresh)
                about = stage.replace("training", "evaluating")
                judged = judge_cross_encoder(reader, run.config, run.parts, fitted.history, run.on_progress, about)
                write_cross_model(judged, fresh)
            shutil.rmtree(states)
        barrier()
    found = load(folder)
    assert isinstance(found, CrossModel)
    return found, diverged


def load_reranker(config: Config) -> CrossModel | None:
    """The reranker of a config if it is a folder; None if it will be trained, or there is none.

    Raises:
        UserError: the folder has no cross-encoder of qpairs.
    """
    name = config.reranker
    if name and world() > 1:
        raise UserError(
            "reranker: is trained by a single process; train it with one, then combine it with qpairs combine"
        )
    if not name or name in TRANSFORMERS:
        return None
    check_transformer("reranker", name)
    if not (Path(name) / FILE).exists():
        hint = nearest(name, [*TRANSFORMERS, "a folder that qpairs train --model cross-encoder wrote"])
        raise UserError(f"reranker: no cross-encoder {name!r}; {hint}")
    found = load(name, second_look=False)
    if not isinstance(found, CrossModel):
        raise UserError(f"reranker: {name} is not a cross-encoder; qpairs train --model cross-encoder trains one")
    return found


def warn_of_another_split(what: str) -> None:
    """Warns if a model used in a run was trained on other parts than those of the run."""
    log.warning("%s was not trained on this split; it may have seen validation and test pairs", what)
