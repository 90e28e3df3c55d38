"""Ready models: encoders that need no training here, by name, Hub id or folder, with a verdict for a corpus.

A ready model has seen no labels of the user. Its scores of duplicates and near misses are measured once, on bundled
questions whose duplicates are all known; their meaning in a corpus is then estimated from the corpus' own scores, with
wide intervals (`metrics.borrowed`). The result is stored as an ordinary checkpoint in the user's cache.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock
from qpairs.encoders.archives import cache_folder
from qpairs.encoders.build import ENCODERS, MODULES
from qpairs.models.base import FILE, Model, fingerprint

log = logging.getLogger(__name__)

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
READY = tuple(name for name, kind in ENCODERS.items() if not kind.own_vocabulary)
MAX_LENGTH = 128  # tokens of a question: titles and descriptions are longer than questions
VERSION = 2  # of what is measured; another one is measured anew


def ready_cache() -> Path:
    """The folder of the ready models that were used before: in the Hugging Face cache (`HF_HOME`)."""
    return cache_folder() / f"ready-{VERSION}"


def shown_name(model: Model) -> str:
    """How a command names a model: its folder, or the name of a ready model."""
    return str(model.config.encoder if model.path.parent == ready_cache() else model.path)


def ready_folder(path: Path) -> Path:
    """The checkpoint folder of a ready model, created if needed.

    Args:
        path: the user's name for it: one of `READY`, a Hub id, or the folder of a SentenceTransformer. A folder takes
            precedence over a name.

    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """
    name = path.as_posix()
    if path.is_dir():
        if not (path / MODULES).is_file():
            other = f"; to use the ready model {name}, rename the folder" if name in READY else ""
            raise UserError(
                f"{path}: no checkpoint and no export here (no {FILE}), nor a SentenceTransformer (no {MODULES}){other}"
            )
        return _made(str(path.absolute()), f"{path.absolute().name}-{fingerprint(path)}")
    if name in ENCODERS and name not in READY:
        raise UserError(f"{name}: must be trained first, with qpairs train --encoder {name}; {_choices()}")
    if name in READY:
        return _made(name, name)
    if not HUB_ID.fullmatch(name) or Path(path.parts[0]).is_dir():
        raise UserError(f"{path}: no such checkpoint or export folder; {_choices()}")
    try:
        return _made(name, name.replace("/", "--"))
    except UserError as error:
        raise UserError(f"{path}: no such checkpoint or export folder, and as a Hub id: {error}") from None


def warn_of_folder(path: Path) -> None:
    """Logs a warning if a folder hides the ready model of the same name."""
    if path.as_posix() in READY:
        log.warning("%s: using the folder of that name here, not the ready model", path)


def _choices() -> str:
    return f"models that need no training: {', '.join(READY)}, a Hub id, or the folder of a SentenceTransformer"


def _made(encoder: str, slug: str) -> Path:
    """The checkpoint of an encoder in the cache; concurrent processes wait for the first."""
    folder = ready_cache() / slug
    if (folder / FILE).exists():
        return folder
    with exclusive_lock(ready_cache(), wait=True):
        if not (folder / FILE).exists():
            _make(encoder, folder)
    return folder


def _make(encoder: str, folder: Path) -> None:
    from qpairs.encoders.build import build_encoder
    from qpairs.models.bi_encoder import Checkpoint, embed_tables, save_checkpoint
    from qpairs.models.borrowed import measured_pairs, ready_verdict

    built = build_encoder(encoder, max_length=MAX_LENGTH)
    pairs = measured_pairs()
    log.warning(
        "%s is used for the first time: measuring its scores on %s bundled questions; the result is kept in %s",
        encoder,
        f"{len(pairs.questions):,}",
        folder,
    )
    vectors, columns = embed_tables(built, pairs.questions)
    if columns is not vectors:
        raise UserError(f"{encoder}: two towers; a corpus needs a single encoder")
    config = Config(encoder=encoder, max_length=MAX_LENGTH)
    save_checkpoint(Checkpoint(built, ready_verdict(pairs, vectors), config), folder, overwrite=True)
