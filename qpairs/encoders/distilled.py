"""Word vectors from an encoder: its vector of each single token of its vocabulary, weighted by rarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from qpairs.core.directions import main_directions
from qpairs.core.exceptions import UserError
from qpairs.encoders.build import ENCODERS, MODULES, Recipe
from qpairs.encoders.pretrained import load_encoder
from qpairs.encoders.readers import is_transformer, reader_of
from qpairs.encoders.tokens import Floats, Ids, embed, token_ids
from qpairs.encoders.towers import is_siamese, towers
from qpairs.encoders.words import build_mean

RARITY = 1e-3  # the share of all tokens at which the weight of a token is a half
DIMENSION = 256  # of the vectors, at most: the principal components of what the encoder gives


def is_encoder(vectors: str) -> bool:
    """Whether vectors are to come out of an encoder: a pretrained one by name, or the folder of one.

    >>> is_encoder("minilm"), is_encoder("glove")
    (True, False)
    """
    return (vectors in ENCODERS and not ENCODERS[vectors].own_vocabulary) or Path(vectors, MODULES).is_file()


def build_static(recipe: Recipe) -> SentenceTransformer:
    """The mean of word vectors, which come out of an encoder where `recipe.vectors` names one.

    >>> build_static(Recipe("static", "", ["how do I pay", "how do I pay"], 64, np.random.default_rng(0))).device.type
    'cpu'
    """
    return build_distilled(recipe) if is_encoder(recipe.vectors) else build_mean(recipe)


def build_distilled(recipe: Recipe) -> SentenceTransformer:
    """The mean of vectors of tokens that come out of the encoder that `recipe.vectors` names.

    Each token is encoded alone; of these vectors, less their mean, the first `DIMENSION` principal components stay,
    weighted by rarity (Tulkens and van Dongen 2024, model2vec).

    Raises:
        UserError: the encoder cannot be loaded, has two towers, or is no transformer.

    >>> from qpairs.encoders.build import build_encoder
    >>> build_encoder("static", vectors="minilm", texts=["how do I pay"])[0].embedding.weight.shape  # doctest: +SKIP
    torch.Size([30522, 256])
    """
    name = recipe.vectors
    plain = replace(recipe, name=name, vectors="", prompt="", route="")
    encoder = ENCODERS[name].build(plain) if name in ENCODERS else load_encoder(name)
    if not (is_siamese(encoder) and is_transformer(tower := towers(encoder)[0])):
        raise UserError(f"vectors: {name}: a transformer of one tower is needed, such as minilm")
    tokenizer = reader_of(tower).tokenizer()
    tokenizer.no_padding()
    tokenizer.enable_truncation(recipe.max_length)
    size = tokenizer.get_vocab_size()
    found = [row.ids for row in tokenizer.encode_batch_fast(list(recipe.texts), add_special_tokens=False)]
    counts = np.bincount(np.concatenate([np.empty(0, dtype=np.int64), *found]).astype(np.int64), minlength=size)
    vectors = principal(embed(tower, single_tokens(tower, size)), DIMENSION)
    vectors *= rarity(counts / max(1, counts.sum()), RARITY)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1).mean()
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(vectors))])


def single_tokens(tower: SentenceTransformer, vocabulary: int) -> Sequence[Ids]:
    """The ids of texts of one token each, between the special tokens that the tower adds to every text.

    >>> from qpairs.encoders.build import build_encoder
    >>> tiny = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"])
    >>> len(single_tokens(tiny, 3)), len(single_tokens(tiny, 3)[0])
    (3, 3)
    """
    empty, short = (row.tolist() for row in token_ids(tower, ["", "a"]))
    place = next((k for k, (a, b) in enumerate(zip(empty, short, strict=False)) if a != b), len(empty))
    around = np.insert(np.array(empty, dtype=np.int32), place, 0)
    rows = np.tile(around, (vocabulary, 1))  # (vocabulary, tokens)
    rows[:, place] = np.arange(vocabulary)
    return list(rows)


def rarity(share: NDArray[np.float64], half: float) -> Floats:
    """The weight of tokens (n,) by their share of all tokens (SIF: Arora, Liang and Ma 2017, equation 3).

    Args:
        share: (n,) of all tokens of the training questions.
        half: the share at which the weight is a half.

    >>> rarity(np.array([0.0, 1e-4]), 1e-4).tolist()
    [1.0, 0.5]
    """
    weight: Floats = (half / (half + share)).astype(np.float32)
    return weight


def principal(vectors: Floats, dimension: int) -> Floats:
    """Vectors (n, d), less their mean, as their first `dimension` principal components; all d if there are fewer.

    >>> principal(np.array([[0, 3], [0, 1]], dtype=np.float32), 1).round(3).tolist()
    [[1.0], [-1.0]]
    """
    centred = vectors - vectors.mean(axis=0)
    components: Floats = (centred @ main_directions(centred, dimension)).astype(np.float32)
    return components
