"""The text that an encoder puts before every question, such as "query: ".

Encoders of today are trained with a prompt for each task (E5, Wang et al. 2022, section 4; Instructor, Su et al. 2023),
and are worse without it. Duplicates are a symmetric task, so both sides of a pair have the same prompt. It is kept in
the encoder as its default: `SentenceTransformer(path).encode(text)` gives the vector that qpairs gives.
"""

from __future__ import annotations

import re

from sentence_transformers import SentenceTransformer

from qpairs.core.exceptions import UserError, nearest
from qpairs.encoders.readers import reader_of

SYMMETRIC = ("PairClassification", "STS", "text-matching", "Clustering", "query")
NONE = "none"
OWN = "duplicates"  # the name of a prompt that the user wrote


def choose_prompt(encoder: SentenceTransformer, wanted: str = "") -> None:
    """Sets the prompt of an encoder of one tower, for `encode`, `encode_query` and `encode_document` alike.

    Args:
        encoder: whose default prompt is set.
        wanted: name of one of its prompts; or a text with a blank or a mark; or 'none'. '': its default prompt if it
            names one, else the first that it has of `SYMMETRIC`, in upper or lower case, else none.

    Raises:
        UserError: no such prompt, or one that does not fit the encoder.

    >>> from qpairs.encoders.build import build_encoder
    >>> from qpairs.encoders.tokens import prompt_of
    >>> encoder = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"])
    >>> choose_prompt(encoder, "query: ")
    >>> prompt_of(encoder)
    'query: '
    """
    named = {name: text for name, text in encoder.prompts.items() if text}
    if not named and wanted in ("", NONE):
        return
    if not wanted:
        by_case = {name.lower(): name for name in reversed(named)}
        found = (by_case[kind.lower()] for kind in SYMMETRIC if kind.lower() in by_case)
        wanted = encoder.default_prompt_name or next(found, NONE)
    if wanted in encoder.prompts:
        name, text = wanted, encoder.prompts[wanted] or ""
    elif wanted == NONE:
        name, text = NONE, ""
    elif re.fullmatch(r"[\w.-]+", wanted):
        raise UserError(
            f"prompt: the encoder has no prompt named {wanted!r}; {nearest(wanted, [*named, NONE])}; or write a text "
            "with a space or punctuation, like 'query: '"
        )
    else:
        name, text = OWN, wanted
    encoder.prompts |= {name: text, "query": text, "document": text}
    encoder.default_prompt_name = name


def prompt_length(encoder: SentenceTransformer, prompt: str) -> int:
    """Tokens of a prompt.

    Raises:
        UserError: it leaves no room for a question.
    """
    if not prompt:
        return 0
    whole, bare, longer = reader_of(encoder).ids([prompt, "", f"{prompt} how do I pay?"])
    if len(longer) == len(whole):
        raise UserError(f"prompt: {prompt!r} leaves no room for a question: this encoder reads {len(whole)} tokens")
    return len(whole) - len(bare)
