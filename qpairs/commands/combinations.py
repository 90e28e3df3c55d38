"""Which options have an effect together: one that a user gives and that would have none is refused, in one place.

A row of `RULES` names options of a command, when they have an effect, and what they need, for the message. An option is
checked if the user wrote it on the command line; the values of the others are from the command line, a TOML file, or
defaults. Values in a TOML file are not checked, since `train --show-config` writes all of them. The options of a run go
with its dry run, too: the same line without --dry-run is the run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from qpairs.commands.shared_options import with_shared_options, with_signature
from qpairs.core.exceptions import UserError
from qpairs.core.shell import shown_command

Values = Mapping[str, Any]

FILES = ("data", "questions")  # parameters whose options name files that are easily given without them


@dataclass(frozen=True)
class Rule:
    """Options that have no effect unless a condition holds.

    Attributes:
        options: names of their parameters.
        count: whether they have an effect, by the values of all parameters.
        without: what they need, for the message.
    """

    options: tuple[str, ...]
    count: Callable[[Values], bool]
    without: str


def with_rules(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which refuses extra words and options without an effect, with the options that many share.

    Args:
        command: its function, named as the command.
    """
    inner = with_shared_options(command)
    parameters = list(inspect.signature(inner, eval_str=True).parameters.values())

    def checked(context: typer.Context, **values: Any) -> None:
        refuse_extra(context)
        require_effects(context, values)
        inner(**values)

    checked.__name__, checked.__doc__ = command.__name__, command.__doc__
    kind = inspect.Parameter.KEYWORD_ONLY
    about = inspect.Parameter("context", kind, annotation=typer.Context)
    return with_signature(checked, [about, *(one.replace(kind=kind) for one in parameters)])


def refuse_extra(context: typer.Context) -> None:
    """Raises a usage error if there are more words than a command takes: one may be a file whose option is missing.

    Args:
        context: of the command, which allows extra words.
    """
    if not context.args:
        return
    flags = {one.name: max(one.opts, key=len) for one in context.command.params if one.param_type_name == "option"}
    flag = next((flags[name] for name in FILES if name in flags), "")
    hint = f"; a file is named by {flag}: {shown_command(flag, context.args[0])}" if flag else ""
    context.fail(f"unexpected {' '.join(map(repr, context.args))}{hint}")


def require_effects(context: typer.Context, values: Values) -> None:
    """Raises UserError for an option on the command line that would have no effect.

    Args:
        context: of the command, which knows what was written there.
        values: of all parameters of the command.
    """
    rules = RULES.get(context.info_name or "", ())
    given = {one.name: max(one.opts, key=len) for one in context.command.params if _is_written(context, one.name)}
    if not any(name in given for rule in rules for name in rule.options):
        return
    known = _settled(values)
    for rule in rules:
        for name in rule.options:
            if name in given and not rule.count(known):
                command = context.command_path.partition(" ")[2]
                raise UserError(f"{command}: {given[name]} has no effect without {rule.without}; leave it out")


def _is_written(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


def _settled(values: Values) -> Values:
    """The values of a command, those of a training run with its TOML file and the defaults."""
    if "config" not in values:
        return values
    from qpairs.config import OPTIONS, read_toml

    defaults = {name: spec.default for name, spec in OPTIONS.items()}
    written = read_toml(values["config"]) if values["config"] else {}
    return {**defaults, **written, **{name: value for name, value in values.items() if value not in (None, [])}}


def _needs(options: str, *one_of: str, without: str) -> Rule:
    """Options that have an effect if one of others has a value."""
    return Rule(tuple(options.split()), lambda values: any(values[name] for name in one_of), without)


def _listed(value: Any) -> list[str]:
    """The items of an option that is a list, or one text with commas outside of parentheses."""
    texts = [value] if isinstance(value, str) else list(value)
    return [item.strip() for text in texts for item in re.split(r",(?![^()]*\))", text) if item.strip()]


def _axis(values: Values, many: str, one: str) -> list[str]:
    """The values in the cells of an experiment: the items of `--losses`, say, or the one loss of the options."""
    return _listed(values.get(many) or "") or [values[one]]


def _any_encoder(takes: str) -> Callable[[Values], bool]:
    """Whether an encoder, or a tower of it, is the user's own, or one of which `qpairs.encoders.build` says this."""

    def found(values: Values) -> bool:
        from qpairs.encoders import build

        encoders = _axis(values, "encoders", "encoder")
        towers = [side for name in encoders for side in build.tower_names(name)]
        own = any(not (side in build.ENCODERS or "/" in side or Path(side).is_dir()) for side in towers)
        return own or any(map(getattr(build, takes), encoders if takes == "takes_prompt" else towers))

    return found


def _has_dropout(values: Values) -> bool:
    from qpairs.encoders.build import tower_names

    return any(side != "static" for name in _axis(values, "encoders", "encoder") for side in tower_names(name))


def _has_head(values: Values) -> bool:
    """Whether a loss trains a classifier of pairs, or is of the user's own."""
    from qpairs.objectives.losses import LOSSES

    terms = [re.sub(r"\([^)]*\)", "", loss) for loss in _axis(values, "losses", "loss")]
    names = {name for term in terms for name in re.findall(r"[A-Za-z_]\w*", term)}
    return any(name not in LOSSES or LOSSES[name].similarity == "head" for name in names)  # `all` is no loss itself


def _samples(sampler: str) -> Callable[[Values], bool]:
    """Whether a sampler draws batches: that of `--sampler`, or one that an experiment lists among its miners."""
    as_miner = {"triplets": "offline", "groups": "groups"}[sampler]

    def found(values: Values) -> bool:
        miners = _axis(values, "miners", "miner")
        return as_miner in miners or (values["sampler"] == sampler and _own_sampler(values))

    return found


def _own_sampler(values: Values) -> bool:
    return any(miner not in ("offline", "groups") for miner in _axis(values, "miners", "miner"))


def _teachers(values: Values) -> list[str]:
    """The teachers whose probabilities are learned."""
    return list(_listed(values["teacher"])) if values["distill"] == "probabilities" else []


def _trains(names: Iterable[str]) -> bool:
    """Whether a cross-encoder of one of these names is trained, and not loaded."""
    return any(name in ("minilm", "mpnet", "tiny") for name in names)


def _serves_a_model_alone(values: Values) -> bool:
    return not any(values[name] for name in ("index", "questions", "clusters", "read_only"))


_READING = "columns labels label_cut skip_bad_rows"
_PAIRS_TO_READ = _needs(_READING, "data", without="--data")
_OF_TEACHERS = (
    _needs("distill_weight teacher_epochs second_epochs neighbours", "teacher", without="--teacher"),
    Rule(
        ("distill",),
        lambda values: bool(values["teacher"]) or values["distill"] != "probabilities",  # which `Config` refuses itself
        "--teacher",
    ),
    Rule(
        ("distill_weight",),
        lambda values: values["distill"] != "probabilities",
        "--distill embeddings or --distill relations",
    ),
    Rule(
        ("teacher_epochs",),
        lambda values: _trains(_teachers(values)),
        "a --teacher that the run trains: minilm, mpnet or tiny",
    ),
    Rule(("second_epochs",), lambda values: "itself" in _teachers(values), "--teacher itself"),
    Rule(("neighbours",), lambda values: bool(_teachers(values)), "--distill probabilities"),
)
_OF_BATCHES = (
    Rule(("group_size",), _samples("groups"), "the sampler groups"),
    Rule(("mined", "relative_margin"), _samples("triplets"), "the sampler triplets"),
    Rule(("dropout",), _has_dropout, "an encoder with dropout, which static has not"),
)
_OF_PARTS = (
    Rule(
        ("validation_fraction",),
        lambda values: not (values["validation"] or values["unlabelled"]),
        "a validation part that is cut from the data",
    ),
    Rule(
        ("test_fraction",),
        lambda values: not (values["validation"] or values["test"] or values["unlabelled"]),
        "a test part that is cut from the data",
    ),
    Rule(
        ("labels", "label_cut", "label_range"),
        lambda values: bool(values["validation"] or not values["unlabelled"]),
        "labelled pairs; with --unlabelled, name them with --validation",
    ),
    Rule(
        ("patience",),
        lambda values: bool(values["validation"] or not values["unlabelled"]),
        "evaluations; with --unlabelled, name pairs for them with --validation",
    ),
)
_OF_RERANKER = (
    Rule(
        ("reranker_epochs",),
        lambda values: _trains([values["reranker"]]),
        "a --reranker that the run trains: minilm, mpnet or tiny",
    ),
)
_OF_CELLS = (
    Rule(("vectors",), _any_encoder("takes_vectors"), "an encoder that takes word vectors: lstm, cnn or static"),
    Rule(("prompt",), _any_encoder("takes_prompt"), "an encoder that takes a prompt: a pretrained one, of one tower"),
    Rule(("lora",), _any_encoder("takes_lora"), "an encoder that is pretrained"),
    Rule(("score",), _has_head, "the loss pair_softmax"),
)  # where `train` refuses them, a cell of an experiment leaves them out

RULES: Mapping[str, tuple[Rule, ...]] = {
    "train": (
        *_OF_TEACHERS,
        *_OF_BATCHES,
        *_OF_PARTS,
        *_OF_RERANKER,
        Rule(
            ("resume",),
            lambda values: not (values["dry_run"] or values["show_config"]),
            "a run: --dry-run and --show-config train nothing",
        ),
        Rule(
            ("overwrite", "dry_run"),
            lambda values: not values["show_config"],
            "a run: --show-config trains nothing",
        ),
    ),
    "combine": (_PAIRS_TO_READ,),
    "compare": (
        *_OF_TEACHERS,
        *_OF_BATCHES,
        *_OF_PARTS,
        *_OF_CELLS,
        Rule(("sampler",), _own_sampler, "a miner: --miners names only samplers"),
    ),
    "learning-curve": (*_OF_TEACHERS, *_OF_BATCHES, *_OF_PARTS, *_OF_CELLS),
    "audit": (*_OF_TEACHERS, *_OF_BATCHES, *_OF_RERANKER),
    "evaluate": (
        _needs("columns labels label_cut", "data", without="--data"),
        _needs("skip_bad_rows", "data", "retrieval", without="--data or --retrieval"),
        Rule(
            ("perturb", "attack", "attack_vectors", "intents"),
            lambda values: bool(values["data"] or not values["retrieval"]),
            "labelled pairs; with --retrieval, name them with --data",
        ),
        _needs("attack_vectors", "attack", without="--attack"),
        _needs("text_column id_column", "corpus", without="--retrieval and --corpus"),
        _needs("overwrite", "json_file", without="--json"),
    ),
    "predict": (
        Rule(
            ("output", "columns", "skip_bad_rows", "overwrite"),
            lambda values: len(values["questions"]) != 2,
            "a file of pairs instead of two questions",
        ),
    ),
    "calibrate": (
        _needs("columns label_values label_cut", "data", without="--data"),
        _needs("text_column labels", "corpus", without="--corpus"),
        _needs("trust", "labels", without="--labels"),
    ),
    "errors": (_PAIRS_TO_READ,),
    "report": (_PAIRS_TO_READ,),
    "data": (_needs("overwrite raw", "contradictions_file", without="--contradictions"),),
    "export": (_PAIRS_TO_READ,),
    "embed": (Rule(("ray_address",), lambda values: values["engine"] == "ray", "--engine ray"),),
    "index": (_needs("kind address overwrite", "output", without="--output"),),
    "search": (_needs("output text_column skip_bad_rows overwrite raw", "file", without="--file"),),
    "dedupe": (
        Rule(
            ("text_column", "id_column", "skip_bad_rows", "embeddings", "against", "dry_run"),
            lambda values: not Path(values["questions"]).is_dir(),
            "a file of questions instead of a folder from qpairs embed (name both: FILE --embeddings FOLDER)",
        ),
        Rule(
            ("engine",),
            lambda values: values["engine"] != "ray" or Path(values["questions"]).is_dir(),
            "a folder from qpairs embed instead of a file of questions",
        ),
        Rule(("ray_address",), lambda values: values["engine"] == "ray", "--engine ray"),
        Rule(
            ("kind", "overwrite", "raw"),
            lambda values: not values["dry_run"],
            "--output instead of --dry-run",
        ),
    ),
    "serve": (
        _needs("text_column id_column", "questions", without="--questions"),
        _needs("labels url_template max_reads", "index", "questions", without="--index or --questions"),
        Rule(("uploads",), lambda values: values["max_upload"] > 0, "--max-upload above 0"),
        Rule(
            ("uploads", "max_upload"),
            _serves_a_model_alone,
            "serving a model alone: no --index, --questions, --clusters or --read-only",
        ),
        Rule(
            ("annotator",),
            lambda values: (
                bool(values["labels"] or values["questions"] or _serves_a_model_alone(values))
                and not values["read_only"]
            ),
            "labels: use --labels or --questions, and not --read-only",
        ),
    ),
    "agreement": (
        _needs("overwrite", "disagreements", "output", without="--disagreements or --output"),
        _needs("raw", "disagreements", without="--disagreements"),
    ),
}  # command -> which of its options have an effect only so
