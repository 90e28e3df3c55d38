"""Encoders over word vectors (`lstm`, `cnn`, `static`), their vocabulary and their tokenizers."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    Dense,
    Normalize,
    Pooling,
    StaticEmbedding,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from qpairs.core.exceptions import UserError
from qpairs.encoders.build import Recipe
from qpairs.encoders.vectors import MAX_WORDS, WORD, Floats, read_vectors

PAD, UNKNOWN, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
WORD_SPECIALS = (PAD, UNKNOWN, SEP)  # rows 0, 1 and 2; the modules pad with row 0
MIN_COUNT = 2  # of a word that has no vector
WORD_DIMENSION = 128  # without vectors


def build_mean(recipe: Recipe) -> SentenceTransformer:
    """The mean of word vectors (fastText's classifier without n-grams: Joulin et al. 2016)."""
    words, table = word_table(recipe)
    tokenizer = word_tokenizer(words)
    tokenizer.enable_truncation(recipe.max_length)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(table))])


def build_lstm(recipe: Recipe) -> SentenceTransformer:
    """A bidirectional LSTM with max pooling (Conneau et al. 2017, section 3.2.1)."""
    words = word_embeddings(recipe)
    lstm = LSTM(words.get_embedding_dimension(), hidden_dim=256)
    return SentenceTransformer(modules=[words, lstm, Pooling(lstm.get_embedding_dimension(), "max")])


def build_cnn(recipe: Recipe) -> SentenceTransformer:
    """Convolutions over 1, 3 and 5 words with max pooling (Kim 2014, section 2)."""
    words = word_embeddings(recipe)
    cnn = CNN(words.get_embedding_dimension(), out_channels=256, kernel_sizes=[1, 3, 5])
    return SentenceTransformer(modules=[words, cnn, Pooling(cnn.get_embedding_dimension(), "max")])


def word_embeddings(recipe: Recipe) -> Any:
    """The first module of an encoder over a sequence of words: their vectors, which train."""
    words, table = word_table(recipe)
    tokenizer = fast_tokenizer(word_tokenizer(words))
    return WordEmbeddings(tokenizer, torch.from_numpy(table), update_embeddings=True, max_seq_length=recipe.max_length)


def mean_vectors(encoder: SentenceTransformer) -> Floats | None:
    """The vectors (vocabulary, dimension) of an encoder that is their normalised mean; None: it is another."""
    module: Any
    module, *rest = encoder
    linear = [other.linear for other in rest if isinstance(other, Dense) and is_linear(other)]
    plain = sum(isinstance(other, Normalize) for other in rest)
    if not isinstance(module, StaticEmbedding) or len(linear) + plain < len(rest):
        return None
    vectors: Floats = module.embedding.weight.detach().float().numpy()
    for map_ in linear:  # the map of a mean is the mean of what is mapped
        vectors = vectors @ map_.weight.detach().float().numpy().T
    return vectors


def is_linear(module: Dense) -> bool:
    """Whether a module multiplies with a matrix and does nothing else."""
    bias: Any = module.linear.bias
    return bias is None and isinstance(module.activation_function, nn.Identity)


def mean_encoder(tokenizer: Tokenizer, vectors: Floats) -> SentenceTransformer:
    """The encoder that is the normalised mean of vectors (vocabulary, dimension), on the CPU."""
    words = StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(vectors))
    return SentenceTransformer(modules=[words, Normalize()], device="cpu")


def word_tokenizer(words: Sequence[str] = ()) -> Tokenizer:
    """Lower-case words and marks, split as for GloVe; [SEP] ends every text.

    So no text is empty: max pooling over no word at all would be NaN.
    """
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("\u2019", "'")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    if words:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {SEP}", special_tokens=[(SEP, words.index(SEP))]
        )
    return tokenizer


def fast_tokenizer(tokenizer: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    """A library tokenizer as transformers takes it."""
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "sep_token": SEP}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options)  # type: ignore[no-untyped-call]


def word_table(recipe: Recipe) -> tuple[list[str], Floats]:
    """The vocabulary and its vectors (words, dimension): padding (zeros), unknown, end, then the words.

    With vectors: their most frequent words (files are in that order) and all that the texts use. Words of the texts
    without a vector, if used twice or more, start at random, spread like the others.
    """
    counts = _count_words(recipe.texts)
    if recipe.vectors:
        known, rows = read_vectors(recipe.vectors, counts)
    else:
        known, rows = [], np.empty((0, WORD_DIMENSION), np.float32)
    frequent = sorted((word for word in counts if counts[word] >= MIN_COUNT), key=lambda word: (-counts[word], word))
    if not known and not frequent:
        raise UserError("no words for a vocabulary: no word occurs twice in the texts, and no vectors are given")
    have = set(known)
    new = [*WORD_SPECIALS, *(word for word in frequent[:MAX_WORDS] if word not in have)]
    mean, spread = (rows.mean(axis=0), rows.std(axis=0)) if known else (0.0, 0.1)
    drawn = recipe.rng.normal(mean, spread, size=(len(new), rows.shape[1])).astype(np.float32)
    drawn[0] = 0.0
    return [*new, *known], np.concatenate([drawn, rows])


def _count_words(texts: Sequence[str]) -> Counter[str]:
    """How often each word occurs."""
    tokenizer = word_tokenizer()
    normalise, split = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
    return Counter(word for text in texts for word, _ in split(normalise(text)))


def split_at_spaces(module: Any, texts: Sequence[str]) -> WordEmbeddings:
    """Word embeddings with a `WhitespaceTokenizer`, which strips words of their marks and skips unknown ones.

    It does not split what `word_tokenizer` splits (what's, and/or): such a word, if used twice or more in the texts,
    gets the mean of the vectors of its parts.
    """
    split, table = module.tokenizer.tokenizer, module.emb_layer.weight.detach()  # (words, dimension)
    words = split.convert_ids_to_tokens(list(range(len(table))))
    counts = Counter(word.strip(string.punctuation) for text in texts for word in text.lower().split())
    known = {"", *words}
    new = [word for word, n in counts.most_common(MAX_WORDS) if n >= MIN_COUNT and word not in known]
    parts = [split(word, add_special_tokens=False)["input_ids"] for word in new]
    return WordEmbeddings(
        WhitespaceTokenizer([*words, *new], stop_words=[]),
        torch.cat([table, *(table[ids].mean(dim=0, keepdim=True) for ids in parts)]),
        update_embeddings=module.update_embeddings,
        max_seq_length=module.max_seq_length,
    )
