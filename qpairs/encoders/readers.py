"""How the first module of an encoder reads text: one `TextReader` for each kind of module, in one table.

Everything that depends on the kind of an encoder asks its reader. A new kind of first module needs a function that
makes its reader, and a row of `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import StaticEmbedding, Transformer, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import (
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
    WordTokenizer,
)
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from qpairs.core.exceptions import UserError
from qpairs.encoders.batches import Ints, padded
from qpairs.encoders.words import SEP, UNKNOWN, split_at_spaces, word_tokenizer

Features = dict[str, Tensor]
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TextReader:
    """How the first module of an encoder reads text.

    Attributes:
        ids: texts to rows of token ids, special tokens included, cut to the maximum length.
        features: the ids of n texts, one after the other, and their lengths (n,) to what the module takes.
        special: the ids of special tokens, and that of the unknown token; None: it has none.
        shorten: cuts questions to so many tokens from now on, at most.
        apply: padded ids and mask (n, width) to what the module returns, by operations that ONNX has.
        tokenizer: a library tokenizer over the same vocabulary, without padding.
        save: writes what gives the same ids without transformers into a folder; None: `tokenizer` does.
        special_tokens: whether the library tokenizer adds its own.
        longest: tokens that are kept of what the tokenizer gives; None: all.
        pad, pad_left: the id that fills up a batch, and whether it comes before the text.
        padded_table: the word vectors, where row 0 is padding.
        routed: the module with a tokenizer that a Router can call, given the training questions; None: it can already.
    """

    ids: Callable[[list[str]], Sequence[Sequence[int]]]
    features: Callable[[Ints, Ints], Features]
    special: Callable[[], tuple[Sequence[int], int | None]]
    shorten: Callable[[int], None]
    apply: Callable[[Tensor, Tensor], Features]
    tokenizer: Callable[[], Tokenizer]
    save: Callable[[Path], None] | None = None
    special_tokens: bool = True
    longest: int | None = None
    pad: int = 0
    pad_left: bool = False
    padded_table: nn.Embedding | None = None
    routed: Callable[[Sequence[str]], WordEmbeddings] | None = None


def reader_of(encoder: nn.Sequential) -> TextReader:
    """The reader of an encoder of one tower.

    Raises:
        UserError: there is none for its first module.
    """
    module: Any = encoder[0]
    for kind, tokenizer, make in READERS:
        if isinstance(module, kind) and isinstance(module.tokenizer, tokenizer):
            return make(module)
    raise UserError(f"an encoder that starts with {type(module).__name__} does not take plain token ids")


def save_tokenizer(encoder: nn.Sequential, folder: Path) -> None:
    """Writes what gives the token ids of an encoder without transformers into a folder.

    Raises:
        UserError: its tokenizer cannot be written.
    """
    reader = reader_of(encoder)
    if reader.save is None:
        reader.tokenizer().save(str(folder / TOKENIZER))
    else:
        reader.save(folder)


def is_transformer(encoder: nn.Sequential) -> bool:
    """Whether an encoder is one tower, and that a transformer."""
    return isinstance(encoder[0], Transformer)


def read_plain_text(encoder: nn.Sequential) -> None:
    """Makes a transformer read plain texts: no chat template around them, and a token that fills up batches.

    Raises:
        UserError: it has no token that could fill up a batch.
    """
    module: Any = encoder[0]
    if not is_transformer(encoder):
        return
    if "message" in module.modality_config:
        module.modality_config = {name: how for name, how in module.modality_config.items() if name != "message"}
        module.input_formatter.supported_modalities = list(module.modality_config)
    tokenizer = module.tokenizer
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError("encoder: its tokenizer has no padding token; set `pad_token` in its tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token


def _transformer(module: Any) -> TextReader:
    tokenizer = module.tokenizer
    pad_left = tokenizer.padding_side == "left"

    def apply(ids: Tensor, mask: Tensor) -> Features:
        module.model.set_attn_implementation("eager")  # plain products, the fastest in ONNX Runtime
        features: Features = module({"input_ids": ids, "attention_mask": mask})
        return features

    def library() -> Tokenizer:
        tokenizer([""], truncation=True)  # puts its settings, such as the longest text, in force
        return _copy(getattr(tokenizer, "backend_tokenizer", tokenizer))

    return TextReader(
        ids=lambda texts: tokenizer(texts, truncation=True)["input_ids"],
        features=lambda ids, lengths: _matrix(ids, lengths, tokenizer.pad_token_id, pad_left),
        special=lambda: (tokenizer.all_special_ids, tokenizer.unk_token_id),
        shorten=lambda length: _shorten(module, length),
        apply=apply,
        tokenizer=library,
        pad=tokenizer.pad_token_id,
        pad_left=pad_left,
    )


def _static(module: Any) -> TextReader:
    tokenizer = module.tokenizer

    def features(ids: Ints, lengths: Ints) -> Features:
        return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(np.cumsum(lengths) - lengths)}

    def apply(ids: Tensor, mask: Tensor) -> Features:
        vectors = functional.embedding(ids, module.embedding.weight) * mask[:, :, None]
        return {"sentence_embedding": vectors.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)}

    return TextReader(
        ids=lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)],
        features=features,
        special=lambda: ([], tokenizer.token_to_id(UNKNOWN) or 0),
        shorten=tokenizer.enable_truncation,
        apply=apply,
        tokenizer=lambda: _copy(tokenizer),
        special_tokens=False,
        longest=(tokenizer.truncation or {}).get("max_length"),
    )


def _words(module: Any, **own: Any) -> TextReader:
    """What all word embeddings have in common."""

    def features(ids: Ints, lengths: Ints) -> Features:
        return {**_matrix(ids, lengths), "sentence_lengths": torch.from_numpy(lengths)}

    def apply(ids: Tensor, mask: Tensor) -> Features:
        found: Features = module({"input_ids": ids, "attention_mask": mask, "sentence_lengths": mask.sum(1)})
        return found

    return TextReader(
        features=features,
        shorten=lambda length: _shorten(module, length),
        apply=apply,
        longest=module.max_seq_length,
        padded_table=module.emb_layer,
        **own,
    )


def _subwords(module: Any) -> TextReader:
    tokenizer = module.tokenizer.tokenizer  # of transformers
    return _words(
        module,
        ids=lambda texts: tokenizer(texts)["input_ids"],
        special=lambda: (tokenizer.all_special_ids, tokenizer.unk_token_id),
        tokenizer=lambda: _copy(getattr(tokenizer, "backend_tokenizer", tokenizer)),
        routed=lambda texts: split_at_spaces(module, texts),
    )


def _word_list(module: Any) -> TextReader:
    tokenizer = module.tokenizer

    def save(folder: Path) -> None:
        if not isinstance(tokenizer, WhitespaceTokenizer):
            raise _unwritable(tokenizer)
        tokenizer.save(str(folder))

    return _words(
        module,
        ids=lambda texts: [tokenizer.tokenize(text) for text in texts],
        special=lambda: ([tokenizer.word2idx.get(SEP, 0)], tokenizer.word2idx.get(UNKNOWN, 0)),
        tokenizer=lambda: word_tokenizer(list(tokenizer.word2idx)),
        save=save,
    )


READERS: tuple[tuple[type[Any], type[Any], Callable[[Any], TextReader]], ...] = (
    (Transformer, object, _transformer),
    (StaticEmbedding, Tokenizer, _static),
    (WordEmbeddings, TransformersTokenizerWrapper, _subwords),
    (WordEmbeddings, WordTokenizer, _word_list),
)  # kind of first module, kind of its tokenizer -> its reader; the first row that fits


def _shorten(module: Any, length: int) -> None:
    module.max_seq_length = min(length, module.max_seq_length or length)


def _matrix(ids: Ints, lengths: NDArray[np.int64], pad: int = 0, pad_left: bool = False) -> Features:
    matrix, mask = padded(ids, lengths, pad, pad_left)
    return {"input_ids": torch.from_numpy(matrix), "attention_mask": torch.from_numpy(mask)}


def _copy(tokenizer: Any) -> Tokenizer:
    """A copy of a library tokenizer, without padding."""
    if not isinstance(tokenizer, Tokenizer):
        raise _unwritable(tokenizer)
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    return copy


def _unwritable(tokenizer: object) -> UserError:
    return UserError(f"export: the tokenizer {type(tokenizer).__name__} cannot be written as {TOKENIZER}")
