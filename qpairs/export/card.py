"""The card (README.md) of a model on the Hugging Face Hub: use, verdict, data, limits, origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from qpairs.config import Config, config_words
from qpairs.core.shell import shown_command
from qpairs.encoders.build import ENCODERS, encoder_note, tower_names
from qpairs.export.usage import usage
from qpairs.models.base import Model
from qpairs.models.cross_encoder import CrossModel
from qpairs.models.two_stages import TwoStages
from qpairs.models.verdict import score_names

TAGS = ("sentence-transformers", "qpairs", "duplicate-questions", "feature-extraction", "sentence-similarity")
CROSS_TAGS = ("sentence-transformers", "cross-encoder", "reranker", "qpairs", "duplicate-questions")
HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"


def model_card(model: Model, name: str) -> str:
    """The README.md of a model on the Hub: YAML for the Hub, then use, verdict, data, limits and origin.

    Args:
        model: a checkpoint, a cross-encoder, or a model of two stages, with public configs.
        name: OWNER/NAME on the Hub.
    """
    part = "test" if "test" in model.scores else "validation"
    scores = model.scores[part]
    sides = [side for stage in _stages(model).values() for side in tower_names(stage.config.encoder)]
    bases = dict.fromkeys(ENCODERS[side].hub_id if side in ENCODERS else side for side in sides)
    on_hub = [base for base in bases if re.fullmatch(HUB_ID, base)]
    alone = isinstance(model, CrossModel)
    metadata = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="text-ranking" if alone else "sentence-similarity",
        tags=list(CROSS_TAGS if alone else TAGS + (("cross-encoder",) if isinstance(model, TwoStages) else ())),
        base_model=on_hub or None,
        model_name=name,
        eval_results=[
            EvalResult("pair-classification", "pairs", f"{part} pairs", metric, round(scores[metric], 4))
            for metric in ("f1", "average_precision")
        ],
    )
    sections = [usage(model, name), _verdict(model, part), _data(model), _limits(model, part), _origin(model)]
    body = "\n\n".join(sections)
    return f"---\n{metadata.to_yaml()}\n---\n\n# {name.split('/')[1]}\n\n{body}\n"


def _stages(model: Model) -> dict[str, Model]:
    """What a model is made of, each with a name: the two of a model of two stages, or the model itself."""
    if isinstance(model, TwoStages):
        return {"encoder": model.first, "cross-encoder": model.second}
    return {"cross-encoder" if isinstance(model, CrossModel) else "encoder": model}


def _verdict(checkpoint: Model, part: str) -> str:
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
        *_alone(checkpoint, part),
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
        lines.append(f"The threshold was chosen on these same pairs; cross-fitted, F1 is {fair}.")
    fitted = checkpoint.scores.get("calibrated_on")
    if fitted:
        low, high = fitted["f1_interval"]
        lines.append(
            f"Since then the threshold was fitted to {fitted['n']:,} pairs of another place, where F1 is {low:.3f} to "
            f"{high:.3f} (95 %); the table is at the threshold before, {scores['threshold']:.4f}."
        )
    return "\n".join(lines)


def _alone(model: Model, part: str) -> list[str]:
    """The rows of the table on each of two models alone, on validation, where both were evaluated."""
    found = model.scores.get("second_look")
    if not found or part != "validation":
        return []
    figures = {"encoder": ("f1_first", "average_precision_first")}
    figures |= {"cross-encoder": ("f1_second", "average_precision_second")}
    return [
        f"| its {kind} alone, F1 cross-fitted | {found[f1]:.3f} | | | {found[average_precision]:.3f} |"
        for kind, (f1, average_precision) in figures.items()
    ]


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


def _data(model: Model) -> str:
    stages = _stages(model)
    same = len({str(stage.split.get("fingerprint")) for stage in stages.values()}) == 1
    parts = [_parts(stage) if same else f"The {kind}:\n\n{_parts(stage)}" for kind, stage in stages.items()]
    return "\n\n".join(["## Data", *(parts[:1] if same else parts)])


def _parts(model: Model) -> str:
    """Where the training pairs of a model come from, and how they were cut."""
    split = model.split
    if not split:
        return f"It was not trained by qpairs: it is `{model.config.encoder}` as it comes."
    sources = ", ".join(f"`{source}`" for source in model.config.data)
    rows = [
        f"| {each} | {n:,} | {split['questions'][each]:,} | {100 * split['duplicates'][each]:.1f} % | "
        f"{split['leaks'][each]['questions'] if each in split['leaks'] else ''} |"
        for each, n in split["sizes"].items()
    ]
    return "\n".join(
        [
            f"Source: {sources}; names in capitals stand for files that are not public. "
            f"Fingerprint of the split: `{split['fingerprint']}`.",
            "",
            "| part | pairs | questions | duplicates | questions seen in train |",
            "| --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


def _limits(model: Model, part: str) -> str:
    weakest = min(model.scores[part]["slices"], key=lambda kind: kind["f1"], default=None)
    configs = [stage.config for stage in _stages(model).values()]
    notes = [
        f"The threshold does not transfer: {score_names(model.verdict.score)} on another forum are distributed "
        "differently. `qpairs calibrate` fits it to a few dozen labelled pairs of yours.",
        f"Only the first {model.config.max_length} tokens of a question are read.",
    ]
    if weakest:
        notes.append(f"Weakest kind of pair ({weakest['name']}, {weakest['n']:,} pairs): F1 {weakest['f1']:.3f}.")
    notes += dict.fromkeys(f"{note}." for config in configs if (note := encoder_note(config.encoder)))
    if any(side in ENCODERS and ENCODERS[side].own_vocabulary for c in configs for side in tower_names(c.encoder)):
        notes.append("The vocabulary was built from the training questions, and contains their words.")
    notes.append("No license is set here: the owner must choose one, and the training data may restrict it.")
    return "\n".join(["## Limits", "", *(f"- {note}" for note in notes)])


def _origin(model: Model) -> str:
    stages = _stages(model)
    libraries = ", ".join(f"{library} {version}" for library, version in model.versions.items())
    commands = [train_command(stage.config) for stage in stages.values() if stage.split]
    if model.config.reranker:  # one run made both
        commands = commands[:1]
    elif len(stages) > 1:
        commands.append("qpairs combine ENCODER CROSS_ENCODER --output BOTH")
    return "## How it was made\n\n```\n" + "\n".join(commands) + f"\n```\n\n{libraries}"


def train_command(config: Config) -> str:
    """The `qpairs train` command of a config, with its options that are not the default.

    >>> train_command(Config(encoder="lstm", symmetric=False))
    'qpairs train --encoder lstm --no-symmetric'
    """
    return shown_command("qpairs", "train", *config_words(config))
