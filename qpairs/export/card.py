"""The card (README.md) of a model on the Hugging Face Hub: use, verdict, data, limits, origin."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from qpairs.config import COMMA_LISTS, Config, to_dict
from qpairs.encoders.build import ENCODERS, encoder_note, tower_names
from qpairs.models.bi_encoder import Checkpoint

TAGS = ("sentence-transformers", "qpairs", "duplicate-questions", "feature-extraction", "sentence-similarity")
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"


def model_card(checkpoint: Checkpoint, name: str) -> str:
    """The README.md of a model on the Hub: YAML for the Hub, then use, verdict, data, limits and origin.

    Args:
        checkpoint: with a public config.
        name: OWNER/NAME on the Hub.
    """
    part = "test" if "test" in checkpoint.scores else "validation"
    scores = checkpoint.scores[part]
    sides = tower_names(checkpoint.config.encoder)
    bases = [ENCODERS[side].hub_id if side in ENCODERS else side for side in sides]
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

`SentenceTransformer("{name}")` loads the encoder alone.{_truncated(checkpoint, name)}"""


def _truncated(checkpoint: Checkpoint, name: str) -> str:
    """How to load the encoder with shorter vectors, where it was trained for that."""
    lengths = sorted(checkpoint.verdict.shortened, reverse=True)
    if not lengths:
        return ""
    return (
        f" Its vectors may be cut to {' or '.join(map(str, lengths))} numbers:\n"
        f'`SentenceTransformer("{name}", truncate_dim={lengths[0]}).encode(texts, normalize_embeddings=True)`.'
    )


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
        *(
            f"| its vectors cut to {row['dimension']} numbers, at {row['threshold']:.4f} | {row['f1']:.3f} | | | "
            f"{row['average_precision']:.3f} |"
            for row in scores.get("dimensions", ())[1:]
        ),
        *_in_a_corpus(scores),
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


def _in_a_corpus(scores: Mapping[str, Any]) -> list[str]:
    """The row of the table on all pairs of the questions; none for models of older versions."""
    found = scores.get("corpus")
    if not found or found["setting"] != "corpus":
        return []
    at, ranked = found["at_threshold"], scores["retrieval"].get("mining_average_precision")
    bound = "" if found["complete"] else " (labels incomplete: precision is a lower bound)"
    return [
        f"| in a corpus of these {found['n']:,} questions, all pairs{bound} | {found['f1']:.3f} | "
        f"{at['precision']:.3f} | {at['recall']:.3f} | {'' if ranked is None else f'{ranked:.3f}'} |"
    ]


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
    if any(side in ENCODERS and ENCODERS[side].own_vocabulary for side in tower_names(config.encoder)):
        notes.append("The vocabulary was made from the training questions, and holds words of theirs.")
    notes.append("No license is set here: it is for the owner to choose, and what it was trained on may restrict it.")
    return "\n".join(["## Limits", "", *(f"- {note}" for note in notes)])


def _origin(checkpoint: Checkpoint) -> str:
    libraries = ", ".join(f"{library} {version}" for library, version in checkpoint.versions.items())
    return f"## How it was made\n\n```\n{train_command(checkpoint.config)}\n```\n\n{libraries}"


def train_command(config: Config) -> str:
    """The `qpairs train` command of a config, with its options that are not the default.

    >>> train_command(Config(encoder="lstm", symmetric=False))
    'qpairs train --encoder lstm --no-symmetric'
    """
    words = ["qpairs", "train"]
    usual = to_dict(Config())
    for name, value in to_dict(config).items():
        flag = f"--{name.replace('_', '-')}"
        if value == usual.get(name):
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif name in COMMA_LISTS:
            words += [flag, ",".join(map(str, value))]
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(words)
