"""Encoders of two towers: two encoders as the routes of one `Router`, and the towers of any encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Router
from torch import nn

from qpairs.encoders.readers import reader_of
from qpairs.encoders.tokens import prompt_of
from qpairs.encoders.words import SEP

ROUTES = ("query", "document")  # that encode_query and encode_document ask a Router for


def is_siamese(encoder: SentenceTransformer) -> bool:
    """Whether both sides of a pair go through the same modules; if not, `towers` are two."""
    return not (isinstance(encoder[0], Router) and set(ROUTES) <= set(encoder[0].sub_modules))


def towers(encoder: SentenceTransformer) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The query side and the document side, each an encoder of one tower; a Siamese encoder is both.

    They are made of the encoder's own modules: what trains, moves or switches the mode of one does it to the other.
    """
    if is_siamese(encoder):
        return encoder, encoder
    query, document = (_tower(encoder, route) for route in ROUTES)
    return query, document


def _tower(encoder: SentenceTransformer, route: str) -> SentenceTransformer:
    """The modules that a text takes on a route, and its prompt."""
    router: Any
    router, *rest = encoder
    prompts = {name: prompt or "" for name, prompt in encoder.prompts.items()}
    tower = SentenceTransformer(
        modules=[*router.sub_modules[route], *rest], prompts=prompts, device=str(encoder.device)
    )
    tower.default_prompt_name = route
    return tower


def join(
    query: SentenceTransformer, document: SentenceTransformer, *, texts: Sequence[str], share_vectors: bool
) -> SentenceTransformer:
    """Two encoders as the routes of one, the document's with as many dimensions as the query's.

    Args:
        query: of first questions.
        document: of second questions; projected linearly where the dimensions differ.
        texts: the training questions, for tokenizers that a Router cannot call.
        share_vectors: whether the document's word vectors are those of the query.
    """
    (left, query_prompt), (right, document_prompt) = (
        _route(side, task, texts) for side, task in zip((query, document), ROUTES, strict=True)
    )
    if share_vectors:
        right[0] = left[0]  # the whole module: the Router then saves it once
    target, source = (side.get_embedding_dimension() or 0 for side in (query, document))
    if source != target:
        right.append(Dense(source, target, bias=False, activation_function=nn.Identity()))
    encoder = SentenceTransformer(
        modules=[Router({"query": left, "document": right}, default_route="query"), Normalize()],
        prompts={"query": query_prompt, "document": document_prompt},
    )
    encoder.default_prompt_name = "query" if query_prompt else None
    return encoder


def _route(encoder: SentenceTransformer, task: str, texts: Sequence[str]) -> tuple[list[Any], str]:
    """The modules of an encoder, such that a Router can call them, and the prompt of its texts.

    A Router hands `task=` on to the tokenizer of words, which `TransformersTokenizerWrapper.tokenize` doesn't take and
    `WhitespaceTokenizer.tokenize` does. That one adds no [SEP], so it becomes the prompt: max pooling over no word at
    all would be NaN.
    """
    modules, prompt, reader = list(encoder), prompt_of(encoder, task), reader_of(encoder)
    return (modules, prompt) if reader.routed is None else ([reader.routed(texts), *modules[1:]], f"{SEP} {prompt}")
