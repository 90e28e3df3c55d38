"""How much of some texts an encoder reads: what it cuts off, which words it does not know, and what is not text."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qpairs.data.pairs import Pairs
from qpairs.data.words import words
from qpairs.encoders.counter import Counts, TokenCounter

log = logging.getLogger(__name__)

SAMPLE = 20_000  # texts whose words are counted
MANY_UNKNOWN = 0.2  # share of unknown words that is worth a warning
MARKUP = re.compile(r"</[a-z][a-z0-9]*\s*>|<br\s*/?>|&(?:amp|lt|gt|quot|nbsp|#\d+);", re.IGNORECASE)
MANY_MARKED = 0.05  # share of texts with markup that is worth a warning: a question may be about a tag
MULTILINGUAL = "intfloat/multilingual-e5-small"


@dataclass(frozen=True)
class Coverage:
    """How much of some questions an encoder reads.

    Attributes:
        texts: questions, or pairs if both questions share the limit.
        cut: those of them that are longer than the limit.
        limit: tokens that are read; None: all.
        unknown: share of the words in a sample of the questions that the encoder does not know, or knows only by their
            letters.
        of_pairs: whether `texts` are pairs.
    """

    texts: int
    cut: int
    limit: int | None
    unknown: float
    of_pairs: bool = False

    def notes(self) -> list[str]:
        """What a user must know, one sentence each.

        >>> Coverage(400, 12, 64, 0.38).notes()[0]
        '12 questions of 400 (3.0 %) were cut at 64 tokens, and the rest was not read: train with a larger --max-length'
        """
        found = []
        if self.cut:
            what = "pairs" if self.of_pairs else "questions"
            found.append(
                f"{self.cut:,} {what} of {self.texts:,} ({100 * self.cut / self.texts:.1f} %) were cut at "
                f"{self.limit} tokens, and the rest was not read: train with a larger --max-length"
            )
        if self.unknown >= MANY_UNKNOWN:
            found.append(
                f"{100 * self.unknown:.0f} % of the words are unknown to this encoder, which cannot tell them apart: "
                "use a pretrained one of their language, such as minilm for English, or a multilingual one, such as "
                f"{MULTILINGUAL} (qpairs train --encoder)"
            )
        return found


def coverage(counter: TokenCounter, texts: Sequence[str], pairs: Pairs | None = None) -> Coverage:
    """How much of some questions an encoder reads.

    Args:
        counter: of the encoder's tokens.
        texts: the questions.
        pairs: over these questions, for a counter of pairs; None: there are none.

    >>> from qpairs.encoders.counter import library_counter
    >>> from qpairs.encoders.words import word_tokenizer
    >>> counter = library_counter(word_tokenizer(["[PAD]", "[UNK]", "[SEP]", "how"]), longest=3)
    >>> coverage(counter, ["How do I pay?", "how"])
    Coverage(texts=2, cut=1, limit=3, unknown=0.6666666666666666, of_pairs=False)
    """
    step = max(1, len(texts) // SAMPLE)
    sample = counter.count(texts[::step])
    words = int(sample.words.sum())
    unknown = float(sample.unknown.sum()) / words if words else 0.0
    if counter.of_pairs and pairs is not None:
        tokens = counter.count(texts).tokens
        both = tokens[pairs.left] + tokens[pairs.right] - 1  # the two share their first or last special token
        cut = int((both > (counter.limit or np.inf)).sum())
        return Coverage(len(pairs), cut, counter.limit, unknown, of_pairs=True)
    return Coverage(len(texts), _longer(counter, texts, sample if step == 1 else None), counter.limit, unknown)


def _longer(counter: TokenCounter, texts: Sequence[str], counted: Counts | None) -> int:
    """Texts with more tokens than the limit. ASCII texts have at most one token per character."""
    if counter.limit is None:
        return 0
    if counted is None:
        around = int(counter.count([""]).tokens[0])  # prompt and special tokens
        texts = [text for text in texts if len(text) + around > counter.limit or not text.isascii()]
        counted = counter.count(texts)
    return int((counted.tokens > counter.limit).sum())


def warn_of_texts(counter: TokenCounter | None, texts: Sequence[str], what: str, pairs: Pairs | None = None) -> None:
    """Logs what `Coverage.notes` says of some questions, that many have the markup of a page, or that none has a word.

    Tokens are not mentioned if those of an encoder cannot be counted.

    Args:
        counter: of the encoder's tokens.
        texts: the questions.
        what: they are, for the message.
        pairs: as in `coverage`.
    """
    if len(texts) and not any(map(words, texts)):
        log.warning("%s: no question has a word, so scores say nothing about what is asked", what)
        return
    sample = texts[:: max(1, len(texts) // SAMPLE)]
    marked = sum(bool(MARKUP.search(text)) for text in sample)
    if marked and marked >= MANY_MARKED * len(sample):
        share = f"{marked:,} of {len(sample):,} questions"
        log.warning("%s: %s have HTML tags or entities, which are read as words: remove them first", what, share)
    if counter is not None and len(texts):
        for note in coverage(counter, texts, pairs).notes():
            log.warning("%s: %s", what, note)
