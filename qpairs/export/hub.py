"""A checkpoint -> a model on the Hugging Face Hub, with a card that tells what it is worth.

What is uploaded names no file, folder or column of the user's own, and holds nothing of the data beyond counts; only a
vocabulary that was made from the training questions has words of theirs.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import tempfile
from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCardData, get_token
from huggingface_hub.errors import HfHubHTTPError

from qpairs.config import Config, to_dict
from qpairs.core.exceptions import UserError
from qpairs.data.formats import FORMATS
from qpairs.data.sources import NAMED_SOURCES
from qpairs.encoders.build import ENCODERS, encoder_note, tower_names
from qpairs.models.bi_encoder import Checkpoint, load_checkpoint, save_checkpoint

CARD = "README.md"
TAGS = ("sentence-transformers", "qpairs", "duplicate-questions", "feature-extraction", "sentence-similarity")
BASES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
OWN_VOCABULARY = ("lstm", "cnn", "static", "tiny")
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"


def push(checkpoint: str | Path, name: str, *, private: bool = False) -> str:
    """Uploads a checkpoint and its card to the Hub; of what is there, its files of weights and JSON, and the card, go.

    Args:
        checkpoint: the folder.
        name: OWNER/NAME on the Hub; made if need be.
        private: whether only the owner may see it.

    Returns:
        The address of the model.

    Raises:
        UserError: no such checkpoint, a name that is none, no token, no network, or a Hub that refuses.
    """
    api = HfApi()
    with tempfile.TemporaryDirectory() as place:
        folder = stage(checkpoint, name, Path(place) / "model")
        if not get_token():
            raise UserError("push: no token for the Hugging Face Hub; log in with `hf auth login`, or set HF_TOKEN")
        try:
            api.whoami()  # one request tells whether the Hub answers and takes the token; the others try again for long
            address = api.create_repo(name, private=private, exist_ok=True)
            if private and not api.model_info(name).private:
                raise UserError(f"push: {name} is there and public; make it private on the Hub, or take another name")
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
        except Exception as error:  # of whatever HTTP library is underneath: there was no answer
            raise UserError(f"push: the Hugging Face Hub cannot be reached ({type(error).__name__})") from error
    return str(address)


def stage(checkpoint: str | Path, name: str, folder: str | Path) -> Path:
    """Writes what `push` would upload into a folder that is not in use.

    Raises:
        UserError: no such checkpoint, a name that is none, or a folder that cannot be written.
    """
    if not re.fullmatch(HUB_ID, name):
        raise UserError(f"push: {name!r} is no name on the Hub; give OWNER/NAME")
    found = load_checkpoint(checkpoint)
    found = dataclasses.replace(found, config=public_config(found.config))
    path = save_checkpoint(found, folder)
    (path / CARD).write_text(model_card(found, name), encoding="utf-8")
    return path


def public_config(config: Config) -> Config:
    """The config without the names of the user's own files, folders and columns.

    A relative folder of two names that is not there any more looks like a Hub id, and stays.
    """
    return dataclasses.replace(
        config,
        data=tuple(_public(source, "DATA") for source in config.data),
        validation=tuple(_public(source, "VALIDATION") for source in config.validation),
        test=tuple(_public(source, "TEST") for source in config.test),
        columns=("TEXT1", "TEXT2", "LABEL")[: len(config.columns)],
        encoder="+".join(_public(side, "ENCODER") for side in tower_names(config.encoder)),
        vectors=_public(config.vectors, "VECTORS") if config.vectors else "",
        output="",
    )


def _public(source: str, placeholder: str) -> str:
    """The source if it has a public name, else the placeholder with its kind of file."""
    identity, kind = re.split(r"[:\[]", source)[0], Path(source).suffix.lower()
    kind = kind if kind in FORMATS else ""
    named = source in ("sample", "glove", *NAMED_SOURCES, *ENCODERS)
    on_hub = not kind and re.fullmatch(HUB_ID, identity) and not os.path.exists(identity)
    return source if named or on_hub else placeholder + kind


def train_command(config: Config) -> str:
    """The `qpairs train` that a config is of: its options that are not the default."""
    words = ["qpairs", "train"]
    usual = to_dict(Config())
    for name, value in to_dict(config).items():
        flag = f"--{name.replace('_', '-')}"
        if value == usual.get(name):
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name == "columns":
            words += [flag, ",".join(value)]
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(words)


# The card


def model_card(checkpoint: Checkpoint, name: str) -> str:
    """The README.md of a model on the Hub: YAML for the Hub, then use, verdict, data, limits and origin.

    Args:
        checkpoint: with a public config.
        name: OWNER/NAME on the Hub.
    """
    part = "test" if "test" in checkpoint.scores else "validation"
    scores = checkpoint.scores[part]
    bases = [BASES.get(side, side) for side in tower_names(checkpoint.config.encoder)]
    on_hub = [base for base in bases if re.fullmatch(HUB_ID, base)]
    metadata = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=on_hub or None,
        model_name=name,
        eval_results=[
            EvalResult("pair-classification", "pairs", f"{part} pairs", metric, round(scores[metric], 4))
            for metric in ("f1", "average_precision")
        ],
    )
    body = "\n\n".join(
        [
            _use(checkpoint, name),
            _verdict(checkpoint, part),
            _data(checkpoint),
            _limits(checkpoint, part),
            _origin(checkpoint),
        ]
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n# {name.split('/')[1]}\n\n{body}\n"


def _use(checkpoint: Checkpoint, name: str) -> str:
    dimension = checkpoint.encoder.get_embedding_dimension()
    sides = "" if checkpoint.config.symmetric else " The first question is the query, the second the document."
    verdict = "a classifier on the two vectors" if checkpoint.head else "their cosine"
    return f"""\
Tells whether two questions ask the same thing. Questions become vectors of {dimension} numbers; {verdict} of at least
{checkpoint.verdict.pair.threshold:.4f} says that they are duplicates.{sides} Made with qpairs.

```python
import qpairs
from huggingface_hub import snapshot_download

model = qpairs.load_checkpoint(snapshot_download("{name}"))
pairs = qpairs.pairs_from_texts(["How do I reset my password?"], ["I forgot my password, what now?"], [-1])
print(qpairs.predict(model, pairs))
```

`SentenceTransformer("{name}")` loads the encoder alone."""


def _verdict(checkpoint: Checkpoint, part: str) -> str:
    scores = checkpoint.scores[part]
    low, high = scores["f1_interval"]
    lines = [
        f"## Verdict on {scores['n']:,} {part} pairs",
        "",
        "| | F1 | precision | recall | average precision |",
        "| --- | --- | --- | --- | --- |",
        f"| this model | **{scores['f1']:.3f}** | {scores['precision']:.3f} | {scores['recall']:.3f} | "
        f"{scores['average_precision']:.3f} |",
        *(
            f"| {trivial} | {got['f1']:.3f} | | | {got['average_precision']:.3f} |"
            for trivial, got in scores["baselines"].items()
        ),
        "",
        f"95 % interval of F1: {low:.3f} to {high:.3f}, by bootstrap over the components of the question graph. "
        f"{100 * scores['duplicates']:.1f} % of these pairs are duplicates.",
    ]
    if part == "validation":
        fair = f"{scores['f1_cross_fitted']:.3f}"
        lines.append(f"The threshold was chosen on these very pairs; cross-fitted, F1 is {fair}.")
    fitted = checkpoint.scores.get("calibrated_on")
    if fitted:
        low, high = fitted["f1_interval"]
        lines.append(
            f"Since then the threshold was fitted to {fitted['n']:,} pairs of another place, where F1 is {low:.3f} to "
            f"{high:.3f} (95 %); the table is at the threshold before, {scores['threshold']:.4f}."
        )
    return "\n".join(lines)


def _data(checkpoint: Checkpoint) -> str:
    split = checkpoint.split
    sources = ", ".join(f"`{source}`" for source in checkpoint.config.data)
    rows = [
        f"| {each} | {n:,} | {split['questions'][each]:,} | {100 * split['duplicates'][each]:.1f} % | "
        f"{split['leaks'][each]['questions'] if each in split['leaks'] else ''} |"
        for each, n in split["sizes"].items()
    ]
    return "\n".join(
        [
            "## Data",
            "",
            f"Source: {sources}; names in capitals stand for files that are not public. "
            f"Fingerprint of the split: `{split['fingerprint']}`.",
            "",
            "| part | pairs | questions | duplicates | questions seen in train |",
            "| --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def _limits(checkpoint: Checkpoint, part: str) -> str:
    weakest = min(checkpoint.scores[part]["slices"], key=lambda kind: kind["f1"], default=None)
    config = checkpoint.config
    notes = [
        "The threshold does not travel: similarities on another forum lie elsewhere. `qpairs calibrate` fits it to a "
        "few dozen labelled pairs of yours.",
        f"Only the first {config.max_length} tokens of a question are read.",
    ]
    if weakest:
        notes.append(f"Weakest kind of pair ({weakest['name']}, {weakest['n']:,} pairs): F1 {weakest['f1']:.3f}.")
    if note := encoder_note(config.encoder):
        notes.append(f"{note}.")
    if any(side in OWN_VOCABULARY for side in tower_names(config.encoder)):
        notes.append("The vocabulary was made from the training questions, and holds words of theirs.")
    notes.append("No license is set here: it is for the owner to choose, and what it was trained on may restrict it.")
    return "\n".join(["## Limits", "", *(f"- {note}" for note in notes)])


def _origin(checkpoint: Checkpoint) -> str:
    libraries = ", ".join(f"{library} {version}" for library, version in checkpoint.versions.items())
    return f"## How it was made\n\n```\n{train_command(checkpoint.config)}\n```\n\n{libraries}"
