"""Texts to token ids, once; ids to what an encoder takes; ids to embeddings. All for encoders of one tower.

Questions are tokenised once (`token_ids`); a batch is cut from those ids (`features`) without the tokenizer. An
encoder of two towers is taken apart first (`towers.towers`). What depends on the kind of encoder is its reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from qpairs.core.exceptions import UserError
from qpairs.encoders.batches import by_length
from qpairs.encoders.counter import TokenCounter, library_counter, skipping_counter
from qpairs.encoders.packed import CPU_TOKENS, GPU_TOKENS, packed_encoder, packed_vectors, takes_packed, with_length_1
from qpairs.encoders.readers import is_transformer, reader_of

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def prompt_of(encoder: SentenceTransformer, task: str = "") -> str:
    """What is put before every text: the prompt of the task if the encoder has one, else its default prompt."""
    return encoder.prompts.get(task) or encoder.prompts.get(encoder.default_prompt_name or "") or ""


def prompt_start(encoder: SentenceTransformer) -> int:
    """Tokens at the start of every text that are those of the prompt, with the special ones before it."""
    prompt = prompt_of(encoder)
    if not prompt:
        return 0
    alone, followed = reader_of(encoder).ids([prompt, f"{prompt}a"])
    same = [a == b for a, b in zip(alone, followed, strict=False)]
    return [*same, False].index(False)


def unpooled_prompt(encoder: SentenceTransformer) -> int:
    """Tokens at the start of every text that the pooling leaves out: those of the prompt (Instructor, Su et al. 2023).

    Counted as `SentenceTransformer.encode` does: the prompt alone, without a special token at its end.
    """
    prompt = prompt_of(encoder)
    if not prompt or all(module.include_prompt for module in encoder if isinstance(module, Pooling)):
        return 0
    reader = reader_of(encoder)
    (alone,) = reader.ids([prompt])
    return len(alone) - (alone[-1] in reader.special()[0])


def token_ids(encoder: SentenceTransformer, texts: Sequence[str]) -> list[Ids]:
    """The token ids of each text, special tokens included, cut to the encoder's maximum length: arrays (length,)."""
    if not texts:
        return []
    prompt, reader = prompt_of(encoder), reader_of(encoder)
    rows = reader.ids([prompt + text for text in texts])
    return [np.asarray(row[: reader.longest], dtype=np.int32) for row in rows]


def token_counter(encoder: SentenceTransformer) -> TokenCounter | None:
    """Counts the tokens of whole texts as an encoder reads them; None if its tokenizer is of an unknown kind.

    >>> from qpairs.encoders.build import build_encoder
    >>> counter = token_counter(build_encoder("static", texts=["how do I pay", "how do I pay by card"], max_length=8))
    >>> counter.limit, counter.count(["how do I pay"]).tokens.tolist()
    (8, [4])
    """
    reader = reader_of(encoder)
    if reader.save is not None:
        return skipping_counter(lambda texts: reader.ids(list(texts)), reader.longest, prompt_of(encoder))
    try:
        tokenizer = reader.tokenizer()
    except UserError:
        return None
    return library_counter(
        tokenizer, prompt=prompt_of(encoder), special_tokens=reader.special_tokens, longest=reader.longest
    )


def features(encoder: SentenceTransformer, ids: Sequence[Ids]) -> dict[str, torch.Tensor]:
    """What the encoder's first module takes, on the CPU, for n texts of at most `width` tokens.

    `input_ids` and `attention_mask` (n, width), for word vectors also `sentence_lengths` (n,); for a StaticEmbedding
    `input_ids` (all tokens,) and `offsets` (n,); where the pooling leaves out the prompt, its `prompt_length` (n,).
    Integers of 64 bits.
    """
    flat = np.concatenate([*ids, np.empty(0, dtype=np.int32)]).astype(np.int64)
    found = reader_of(encoder).features(flat, _lengths(ids))
    left_out = unpooled_prompt(encoder)
    return {**found, "prompt_length": torch.full((len(ids),), left_out)} if left_out else found


def word_dropout(encoder: SentenceTransformer, share: float) -> Callable[[Ids, np.random.Generator], Ids]:
    """Noise for training: each token becomes the unknown one with probability `share`, but for special ones and prompt.

    Iyyer et al. 2015, section 3.2 (there the words are left out).

    Raises:
        UserError: the tokenizer has no unknown token.
    """
    special, unknown = reader_of(encoder).special()
    if unknown is None:
        raise UserError("word_dropout: the encoder's tokenizer has no unknown token; leave --word-dropout at 0")
    start = prompt_start(encoder)

    def noise(ids: Ids, random: np.random.Generator) -> Ids:
        hidden = (random.random(len(ids)) < share) & ~np.isin(ids, special)
        hidden[:start] = False
        return np.where(hidden, unknown, ids).astype(np.int32)

    return noise


def embed(encoder: SentenceTransformer, ids: Sequence[Ids], *, batch_tokens: int | None = None) -> Floats:
    """Embeddings (n, dimension) in the order of `ids`, computed in batches of one length and bounded size.

    Tokens are packed where `takes_packed` holds of the encoder; else batches are padded.

    Args:
        encoder: in training or evaluation mode, which it keeps.
        ids: from `token_ids`.
        batch_tokens: tokens of a batch, padding included; a single longer text is a batch of its own. Without it, few
            for a transformer on a CPU, so that what a layer hands to the next stays in the cache.

    >>> from qpairs.encoders.build import build_encoder
    >>> encoder = build_encoder("static", texts=["how do I pay", "how do I pay by card"])
    >>> embed(encoder, token_ids(encoder, ["how do I pay", "pay"])).shape
    (2, 128)
    """
    training = encoder[0].training  # of the modules, which a tower shares
    encoder.eval()
    try:
        with torch.inference_mode():
            if takes_packed(encoder) and len(ids) and all(map(len, ids)):
                embeddings = packed_vectors(packed_encoder(encoder), ids, batch_tokens)
            else:
                embeddings = _padded_vectors(encoder, ids, batch_tokens)
    finally:
        encoder.train(training)
    if isinstance(encoder[-1], Normalize):
        return with_length_1(embeddings)
    return embeddings


def _padded_vectors(encoder: SentenceTransformer, ids: Sequence[Ids], batch_tokens: int | None) -> Floats:
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if is_transformer(encoder) and encoder.device.type == "cpu" else GPU_TOKENS
    embeddings = np.zeros((len(ids), encoder.get_embedding_dimension() or 0), dtype=np.float32)
    for rows in by_length(_lengths(ids), batch_tokens):
        batch = features(encoder, [ids[row] for row in rows])
        output = encoder({key: value.to(encoder.device) for key, value in batch.items()})
        embeddings[rows] = output["sentence_embedding"].float().cpu().numpy()
    return embeddings


def _lengths(ids: Sequence[Ids]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
