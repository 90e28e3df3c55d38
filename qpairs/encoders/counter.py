"""How many tokens whole texts have, and how many of these are unknown: shows truncation and unknown scripts.

This module imports no torch: an export counts, too.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from qpairs.encoders.batches import Ints

UNKNOWN_TOKENS = ("[UNK]", "<unk>")
CHUNK = 8192  # texts that are tokenised at a time
SPELT = 3  # pieces of a word, of which so great a share are single letters: it is spelt out, and not known
SPELT_SHARE = 0.8
HAN = "CJK "  # how the Unicode names of letters begin that are words by themselves


@dataclass(frozen=True)
class Counts:
    """The tokens of n texts.

    Attributes:
        tokens: (n,) of the whole text, with the prompt and the special ones.
        words: (n,) of these, all but the special ones; a word that is spelt out in single letters is one.
        unknown: (n,) of the words, such as the encoder does not know or has only the letters of.
    """

    tokens: Ints
    words: Ints
    unknown: Ints


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of whole texts as an encoder reads them.

    Attributes:
        count: texts to their counts.
        limit: tokens that the encoder reads of a text; None: all.
        of_pairs: whether both questions of a pair share the limit.
    """

    count: Callable[[Sequence[str]], Counts]
    limit: int | None
    of_pairs: bool = False


def library_counter(
    tokenizer: Tokenizer,
    *,
    prompt: str = "",
    special_tokens: bool = True,
    longest: int | None = None,
    of_pairs: bool = False,
) -> TokenCounter:
    """The counter of a library tokenizer, which no longer cuts; the shorter of its limit and `longest` is the limit.

    Args:
        tokenizer: of one text; it is changed.
        prompt: what is put before every text.
        special_tokens: whether the tokenizer adds its own.
        longest: tokens that are kept of what it gives; None: all.
        of_pairs: as in `TokenCounter`.

    >>> from qpairs.encoders.words import word_tokenizer
    >>> tokenizer = word_tokenizer(["[PAD]", "[UNK]", "[SEP]", "how", "do", "i"])
    >>> tokenizer.enable_truncation(3)
    >>> counter = library_counter(tokenizer)
    >>> found = counter.count(["How do I pay?"])
    >>> counter.limit, found.tokens.tolist(), found.words.tolist(), found.unknown.tolist()
    (3, [6], [5], [2])
    """
    limits = [length for length in (longest, (tokenizer.truncation or {}).get("max_length")) if length]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = next((found for name in UNKNOWN_TOKENS if (found := tokenizer.token_to_id(name)) is not None), -1)
    added = tokenizer.num_special_tokens_to_add(False) if special_tokens else 0
    is_letter = _letters(tokenizer)

    def count(texts: Sequence[str]) -> Counts:
        tokens, words, strange = (np.zeros(len(texts), np.int64) for _ in range(3))
        for start in range(0, len(texts), CHUNK):
            whole = [prompt + text for text in texts[start : start + CHUNK]]
            for row, found in enumerate(tokenizer.encode_batch_fast(whole, add_special_tokens=special_tokens), start):
                ids = found.ids
                tokens[row], strange[row] = len(ids), ids.count(unknown)
                words[row] = max(len(ids) - added, 0)
                if sum(map(is_letter, ids)) >= SPELT:  # the fast call does not say which pieces are of one word
                    spelt = _spelt(tokenizer.encode(whole[row - start], add_special_tokens=special_tokens), is_letter)
                    words[row] -= sum(spelt) - len(spelt)
                    strange[row] += len(spelt)
        return Counts(tokens, words, strange)

    return TokenCounter(count, min(limits, default=None), of_pairs)


def _letters(tokenizer: Tokenizer) -> Callable[[int], bool]:
    """Whether a token is one letter, at the start of a word or inside, of a script whose letters are no words."""

    @functools.cache
    def is_letter(place: int) -> bool:
        token = tokenizer.id_to_token(place) or ""
        bare = token.removeprefix("##").removeprefix("\N{LOWER ONE EIGHTH BLOCK}")
        if len(bare) != 1 or unicodedata.category(bare)[0] not in "LM":  # vowel signs are marks
            return False
        return not unicodedata.name(bare, "").startswith(HAN)

    return is_letter


def _spelt(found: Encoding, is_letter: Callable[[int], bool]) -> list[int]:
    """The number of pieces of each word that is spelt out in (nearly) nothing but single letters."""
    pieces: dict[int, list[bool]] = {}
    for word, letter in zip(found.word_ids, map(is_letter, found.ids), strict=True):
        if word is not None:
            pieces.setdefault(word, []).append(letter)
    return [len(word) for word in pieces.values() if len(word) >= SPELT and sum(word) >= SPELT_SHARE * len(word)]


def skipping_counter(
    rows_of: Callable[[Sequence[str]], Sequence[Sequence[int]]], limit: int | None, prompt: str = ""
) -> TokenCounter:
    """The counter of a tokenizer that splits at blanks and leaves unknown words out.

    Args:
        rows_of: texts to the ids of their known words.
        limit: as in `TokenCounter`.
        prompt: what is put before every text.

    >>> known = {"how": 3, "do": 4}
    >>> counter = skipping_counter(lambda texts: [[known[w] for w in t.split() if w in known] for t in texts], limit=8)
    >>> counter.count(["how do zzyzx"]).unknown.tolist()
    [1]
    """

    def count(texts: Sequence[str]) -> Counts:
        before, *rows = rows_of([prompt, *(prompt + text for text in texts)])
        known = np.array([len(row) - len(before) for row in rows], dtype=np.int64)
        words = np.maximum(np.array([len(text.split()) for text in texts], dtype=np.int64), known)
        return Counts(known + len(before), words, words - known)

    return TokenCounter(count, limit)
