"""The token ids of texts without transformers: from the tokenizer's file, by the Rust tokenizers."""

from __future__ import annotations

import itertools
import string
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from qpairs.core.exceptions import UserError
from qpairs.core.manifests import read_json
from qpairs.core.shapes import WrongShape, flag, record
from qpairs.encoders.batches import Ints
from qpairs.encoders.counter import TokenCounter, library_counter, skipping_counter
from qpairs.models.base import TOKENIZER, WORDS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

KNOWN_WORDS = 2**20  # whose tokens are kept in memory


@dataclass(frozen=True)
class Reading:
    """How one side of an export reads texts.

    Attributes:
        prompt: text put before every text.
        special_tokens: whether the tokenizer adds its own.
        longest: tokens that are kept; None: all that the tokenizer gives.
        by_word: whether no token crosses a space, so that words can be tokenised one by one.
        pad: the id that fills up a batch.
        pad_left: whether it comes before the text.
    """

    prompt: str = ""
    special_tokens: bool = True
    longest: int | None = None
    by_word: bool = False
    pad: int = 0
    pad_left: bool = False


@dataclass(frozen=True)
class Tokens:
    """The token ids of n texts.

    Attributes:
        ids: (tokens,) of one text after the other.
        bounds: (n + 1,) where each text starts, and where the last one ends.
    """

    ids: Ints
    bounds: Ints

    def of(self, rows: Ints) -> Ints:
        """(tokens,) the ids of some of the texts, one after the other."""
        return np.concatenate([self.ids[self.bounds[row] : self.bounds[row + 1]] for row in rows])


def tokeniser(folder: Path, reading: Reading) -> Callable[[Sequence[str]], Tokens]:
    """Texts to the ids of the checkpoint's own tokenizer, from its file in the folder."""
    if (folder / WORDS).exists():
        rows_of = _whitespace_rows(_whitespace_rules(folder))
    else:
        rows_of = _library_rows(_library_tokenizer(folder), special_tokens=reading.special_tokens)
        rows_of = _cached_by_word(rows_of) if reading.by_word else rows_of

    def tokenise(texts: Sequence[str]) -> Tokens:
        return concatenated([row[: reading.longest] for row in rows_of([reading.prompt + text for text in texts])])

    return tokenise


def export_counter(folder: Path, reading: Reading) -> TokenCounter:
    """Counts the tokens of whole texts, as one side of an export reads them."""
    if (folder / WORDS).exists():
        return skipping_counter(_whitespace_rows(_whitespace_rules(folder)), reading.longest, reading.prompt)
    return library_counter(
        _library_tokenizer(folder),
        prompt=reading.prompt,
        special_tokens=reading.special_tokens,
        longest=reading.longest,
    )


def _library_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder; raises UserError if its file is missing or damaged."""
    try:
        return Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"{folder / TOKENIZER}: cannot be read ({' '.join(str(error).split())[:200]})") from None


def _whitespace_rules(folder: Path) -> dict[str, Any]:
    """The words in a folder, and how they are looked up; raises UserError if the file is missing or damaged."""
    rules: dict[str, Any] = read_json(folder / WORDS, RULES, missing=f"{folder / WORDS}: missing")
    return rules


def _words(value: Any, where: str) -> None:
    """The shape of a list of texts, hundreds of thousands of them."""
    if not (isinstance(value, list) and {*map(type, value)} <= {str}):
        raise WrongShape(f"{where} is not a list of texts")


RULES = record({"vocab": _words, "stop_words": _words, "do_lower_case": flag}, others=True)


def concatenated(rows: Sequence[Sequence[int]]) -> Tokens:
    """The token ids of texts, as one array, from which batches are cut."""
    bounds = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=bounds[1:])
    return Tokens(np.fromiter(itertools.chain.from_iterable(rows), np.int64, bounds[-1]), bounds)


def bag_of_words(tokens: Tokens, vocabulary: int) -> csr_array:
    """How often each token occurs in each text, (n, vocabulary)."""
    from scipy.sparse import csr_array

    ones = np.ones(len(tokens.ids), dtype=np.float32)
    return csr_array((ones, tokens.ids, tokens.bounds), shape=(len(tokens.bounds) - 1, vocabulary))


Rows = Callable[[Sequence[str]], list[list[int]]]


def _library_rows(tokenizer: Tokenizer, *, special_tokens: bool) -> Rows:
    def rows(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=special_tokens)]

    return rows


def _cached_by_word(rows_of: Rows) -> Rows:
    """The same ids several times as fast: each word is tokenised once, and its ids are kept."""
    known: dict[str, list[int]] = {}
    lock = threading.Lock()

    def rows(texts: Sequence[str]) -> list[list[int]]:
        words = [text.split(" ") for text in texts]
        with lock:
            if len(known) > KNOWN_WORDS:
                known.clear()
            new = [word for word in dict.fromkeys(itertools.chain.from_iterable(words)) if word not in known]
            known.update(zip(new, rows_of(new), strict=True))
            return [list(itertools.chain.from_iterable(map(known.__getitem__, parts))) for parts in words]

    return rows


def _whitespace_rows(rules: Mapping[str, Any]) -> Rows:
    """The ids of sentence-transformers' WhitespaceTokenizer, which skips stop words and unknown ones.

    A word is looked up without the punctuation around it, first unchanged, then in lower case.
    """
    vocabulary = {word: row for row, word in enumerate(rules["vocab"])}
    ids: dict[str, int | None] = {**vocabulary, **dict.fromkeys(rules["stop_words"])}

    def row(text: str) -> Iterator[int]:
        for word in (text.lower() if rules["do_lower_case"] else text).split():
            bare = word.strip(string.punctuation)
            form = next((form for form in (word, bare, bare.lower()) if form in ids), None)
            if form is not None and (found := ids[form]) is not None:
                yield found

    return lambda texts: [list(row(text)) for text in texts]
