"""BERT's tokenizer from its file, where transformers would make the same of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qpairs.core.manifests import read_json
from qpairs.core.shapes import anything, named

FILE, CONFIG, OLD_SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that take the file as it is
MADE_ANEW = tuple(
    f"{name}Tokenizer{form}" for name in ("Bert", "DistilBert", "MPNet") for form in ("", "Fast")
)  # those that take its vocabulary and template alone, and the rules of their own
SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
RULES: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}  # setting -> its name in the file, and what it is where it is not set
FIXED = {"truncation_side": "right", "padding_side": "right", "split_special_tokens": False, "backend": "tokenizers"}
EMPTY = ("extra_special_tokens", "additional_special_tokens", "never_split")
NO_MATTER = (
    *("clean_up_tokenization_spaces", "do_basic_tokenize", "is_local", "local_files_only"),
    *("max_length", "model_input_names", "model_max_length", "name_or_path", "pad_to_multiple_of", "padding"),
    *("pad_token_type_id", "special_tokens_map_file", "stride", "tokenizer_class", "tokenizer_file", "truncation"),
    *("truncation_strategy",),
)  # other settings, on which no token of a single text depends, or which are read by themselves
PIECES = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
UNLIMITED = 10**9  # tokens


class NotKnown(Exception):
    """What makes a folder one that is read by other means."""


def require(holds: bool, otherwise: str) -> None:
    """Raises `NotKnown` where something does not hold."""
    if not holds:
        raise NotKnown(otherwise)


def known_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer in a folder, which cuts nothing, and the tokens of a text that it is said to read.

    A text begins with one special token and ends with another.

    Raises:
        NotKnown: transformers might make something else of the folder than the library alone.
        UserError: a file is missing or damaged.
    """
    rules, own = _json(folder / FILE), _json(folder / CONFIG)
    kind = own.get("tokenizer_class")
    require(kind in (*AS_IT_IS, *MADE_ANEW), f"a tokenizer {kind}")
    special = {name: _content(own[name]) for name in SPECIAL if own.get(name) is not None}
    if (folder / OLD_SPECIAL).exists():
        old = {name: _content(value) for name, value in _json(folder / OLD_SPECIAL).items()}
        require(old == special, "two lists of special tokens")
    _check_settings(own)
    _check_model(rules, special)
    _check_added(rules, own, special)
    if kind in MADE_ANEW:
        wanted = {of: own.get(name, default) for name, (of, default) in RULES.items()}
        require(rules["normalizer"] == {"type": "BertNormalizer", "clean_text": True, **wanted}, "another normaliser")
        require({"unk_token", "sep_token", "pad_token", "cls_token", "mask_token"} <= special.keys(), "unnamed tokens")
    tokenizer = Tokenizer.from_file(str(folder / FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    require(len(tokenizer.encode("").ids) == 2, "a template without two special tokens")
    return tokenizer, int(own.get("model_max_length", UNLIMITED))


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(file, named(anything), missing=f"{file}: missing")
    return found


def _content(token: Any) -> Any:
    return token["content"] if isinstance(token, dict) else token


def _check_settings(own: Mapping[str, Any]) -> None:
    known = {*FIXED, *EMPTY, *NO_MATTER, *RULES, *SPECIAL, "added_tokens_decoder"}
    require(own.keys() <= known, f"settings {sorted(own.keys() - known)}")
    for name, value in FIXED.items():
        require(own.get(name, value) == value, f"{name} {own.get(name)!r}")
    require(not any(own.get(name) for name in EMPTY), "more special tokens")


def _check_model(rules: Mapping[str, Any], special: Mapping[str, Any]) -> None:
    """Pieces of words, split as BERT does, between the first and the last token of a template."""
    model = rules["model"]
    require(model.get("type", "WordPiece") == "WordPiece", f"a model {model.get('type')}")
    pieces = {**PIECES, "unk_token": special.get("unk_token")}
    require(all(model[name] == value for name, value in pieces.items()), "other pieces of words")
    require(rules["pre_tokenizer"] == {"type": "BertPreTokenizer"}, f"words by {rules['pre_tokenizer']}")
    require(rules["normalizer"]["type"] == "BertNormalizer", f"a normaliser {rules['normalizer']['type']}")
    ends = [special.get("cls_token"), special.get("sep_token")]
    template = rules["post_processor"]
    if template["type"] == "TemplateProcessing":
        parts = template["single"]
        found = [parts[0]["SpecialToken"]["id"], parts[-1]["SpecialToken"]["id"]]
        require(len(parts) == 3 and parts[1]["Sequence"]["id"] == "A", "another template")
    else:
        require(template["type"] in ("BertProcessing", "RobertaProcessing"), f"a template {template['type']}")
        found = [template["cls"][0], template["sep"][0]]
    require(found == ends, f"a template with {found}")


def _check_added(rules: Mapping[str, Any], own: Mapping[str, Any], special: Mapping[str, Any]) -> None:
    """Whole words: each special, of the number that it has in the vocabulary, and in both files the same."""
    added, vocabulary = rules["added_tokens"], rules["model"]["vocab"]
    for token in added:
        require(token["special"] and vocabulary.get(token["content"]) == token["id"], f"a token {token['content']}")
    require({*special.values()} <= {token["content"] for token in added}, "special tokens that are not in the file")
    listed = {str(token["id"]): {name: token[name] for name in token if name != "id"} for token in added}
    require(own.get("added_tokens_decoder", listed) == listed, "two lists of added tokens")
