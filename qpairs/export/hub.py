"""A checkpoint, cross-encoder or model of two stages -> a model on the Hugging Face Hub, with its card.

The upload names none of the user's files, folders or columns, and contains only counts of the data; but a vocabulary
built from the training questions has their words.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from qpairs.config import Config
from qpairs.core.exceptions import UserError
from qpairs.core.files import atomic_folder
from qpairs.core.shell import shown_command
from qpairs.data.formats import FORMATS, ending_of
from qpairs.data.parts import TRAINED_ON
from qpairs.data.sources import NAMED_SOURCES
from qpairs.encoders.build import ENCODERS, tower_names
from qpairs.evaluation.seen import CALIBRATED_ON, DIGESTS
from qpairs.export.card import HUB_ID, model_card
from qpairs.models.base import RERANKER, Model, check_output, load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import CrossModel, write_cross_model
from qpairs.models.ready import shown_name
from qpairs.models.torch_pairs import TorchPairs
from qpairs.models.two_stages import TwoStages

CARD = "README.md"
EXPORT = "an export; name the checkpoint that it was made from"


def push(checkpoint: str | Path, name: str, *, private: bool = False) -> str:
    """Uploads a model and its card to the Hub, in place of the weights, JSON files and card that are there.

    Args:
        checkpoint: the folder.
        name: OWNER/NAME on the Hub; created if need be.
        private: whether only the owner may see it.

    Returns:
        The address of the model.

    Raises:
        UserError: no such checkpoint, an invalid name, no token, no network, or a Hub that refuses.
    """
    api = HfApi()
    with tempfile.TemporaryDirectory() as place:
        folder = stage(checkpoint, name, Path(place) / "model")
        if not get_token():
            raise UserError("push: no token for the Hugging Face Hub; log in with `hf auth login`, or set HF_TOKEN")
        try:
            api.whoami()  # one quick request, because the others are retried for long
            address = api.create_repo(name, private=private, exist_ok=True)
            if private and not api.model_info(name).private:
                raise UserError(f"push: {name} exists and is public; make it private on the Hub, or use another name")
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message="qpairs push",
                delete_patterns=["*.safetensors", "*.json"],
            )
        except UserError:
            raise
        except HfHubHTTPError as error:
            status = error.response.status_code
            hint = "; check the token with `hf auth whoami`" if status in (401, 403) else ""
            reason = (error.server_message or str(error)).strip().splitlines()[0]
            raise UserError(f"push: the Hub refused {name} ({status}: {reason}){hint}") from error
        except Exception as error:  # the HTTP library decides which; there was no answer
            raise UserError(f"push: the Hugging Face Hub cannot be reached ({type(error).__name__})") from error
    return str(address)


def stage(checkpoint: str | Path, name: str, folder: str | Path) -> Path:
    """Writes what `push` would upload into an empty folder.

    Raises:
        UserError: no such checkpoint, an export, a model that was judged on no labelled pairs, an invalid name, or a
            folder that cannot be written.
    """
    if not re.fullmatch(HUB_ID, name):
        raise UserError(f"push: {name!r} is not a name on the Hub; give OWNER/NAME")
    model, path = load(checkpoint), Path(folder)
    model.verdict.require_labelled(shown_name(model))
    found = _public_model(model)
    _require_judged(model)
    with atomic_folder(path) as fresh:
        check_output(path, overwrite=False)
        _write(found, fresh)
        (fresh / CARD).write_text(model_card(found, name), encoding="utf-8")
    return path


def _require_judged(model: Model) -> None:
    """Raises UserError where a card could not say how good a model is, as after `qpairs calibrate` of a ready one."""
    if not {"validation", "test"} & model.scores.keys():
        name = shown_name(model)
        train = shown_command("qpairs", "train", "--encoder", name, "--data", "PAIRS")
        raise UserError(f"push: a card says how good a model is, and {name} was judged on no pairs; train it: {train}")


def _public_model(model: Model) -> Model:
    """A model that can be pushed, without the names of the user's own files.

    Raises:
        UserError: it is an export.
    """
    if isinstance(model, TwoStages):
        first, second = _public_model(model.first), _public_cross_model(model.second)
        return dataclasses.replace(model, first=first, second=second, scores=_public_scores(model.scores))
    if isinstance(model, CrossModel):
        return _public_cross_model(model)
    if isinstance(model, Checkpoint):
        return dataclasses.replace(model, **_public_fields(model))
    raise UserError(f"{model.path}: {EXPORT}")


def _public_cross_model(model: CrossModel) -> CrossModel:
    if not isinstance(model.reader, TorchPairs):
        raise UserError(f"{model.path}: {EXPORT}")
    return dataclasses.replace(model, **_public_fields(model))


def _public_fields(model: Checkpoint | CrossModel) -> dict[str, Any]:
    """Config, split and scores without the user's own names, and without digests of questions, which can be guessed."""
    split = {name: value for name, value in model.split.items() if name != TRAINED_ON}
    return {"config": public_config(model.config), "split": split, "scores": _public_scores(model.scores)}


def _public_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    fitted = {name: value for name, value in scores.get(CALIBRATED_ON, {}).items() if name != DIGESTS}
    return {**scores, CALIBRATED_ON: fitted} if fitted else dict(scores)


def _write(model: Model, folder: Path) -> None:
    """Writes the files of a model and no others, whatever else lies in its own folder."""
    if isinstance(model, TwoStages):
        _write(model.first, folder)
        _write(model.second, folder / RERANKER)
        model.write_look(folder)
    elif isinstance(model, CrossModel) and isinstance(model.reader, TorchPairs):
        model.reader.cross_encoder.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
        write_cross_model(model, folder)
    else:
        model.save(folder)


def public_config(config: Config) -> Config:
    """The config without the names of the user's own files, folders, columns and labels.

    A relative folder of two names that is not there any more looks like a Hub id, and stays.
    """
    return dataclasses.replace(
        config,
        data=tuple(_public(source, "DATA") for source in config.data),
        validation=tuple(_public(source, "VALIDATION") for source in config.validation),
        test=tuple(_public(source, "TEST") for source in config.test),
        columns=("TEXT1", "TEXT2", "LABEL")[: len(config.columns)],
        labels=(),
        negative="NEGATIVE" if config.negative else "",
        text_column="TEXT" if config.text_column else "",
        encoder="+".join(_public(side, "ENCODER") for side in tower_names(config.encoder)),
        vectors=_public(config.vectors, "VECTORS") if config.vectors else "",
        teacher=tuple(_public(teacher, "TEACHER") for teacher in config.teacher),
        drop_suspects=_public(config.drop_suspects, "SUSPECTS") if config.drop_suspects else "",
        reranker=_public(config.reranker, "RERANKER") if config.reranker else "",
        imports=(),
        output="",
    )


def _public(source: str, placeholder: str) -> str:
    """The source if it has a public name, else the placeholder with its kind of file."""
    identity, kind = re.split(r"[:\[]", source)[0], ending_of(source)
    kind = kind if kind in FORMATS else ""
    named = source in ("sample", "glove", "itself", *NAMED_SOURCES, *ENCODERS)
    on_hub = not kind and re.fullmatch(HUB_ID, identity) and not os.path.exists(identity)
    return source if named or on_hub else placeholder + kind
