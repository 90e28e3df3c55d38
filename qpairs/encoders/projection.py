"""A linear projection at the end of an encoder: shorter vectors, which take less memory and are searched faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import nn

from qpairs.core.directions import main_directions
from qpairs.core.exceptions import UserError
from qpairs.encoders.tokens import embed, token_ids
from qpairs.encoders.towers import towers

TEXTS = 4096  # questions, at most, whose vectors say where a projection starts


def add_projection(encoder: SentenceTransformer, dimension: int, texts: Sequence[str], seed: int = 0) -> None:
    """Ends an encoder with a linear map to vectors of `dimension` numbers, in place; two towers have it in common.

    A stock `Dense` module, without bias and activation, before the last normalisation. It starts as the projection on
    the first singular vectors of the questions' vectors, which keeps their products as well as any (Eckart and Young
    1936), and is trained with the encoder.

    Args:
        encoder: its vectors are longer than `dimension`.
        dimension: of the vectors that it will have.
        texts: the training questions; where there are none, the first numbers are kept.
        seed: of the choice of questions.

    Raises:
        UserError: the vectors are not longer than that.

    >>> from qpairs.encoders.build import build_encoder
    >>> encoder = build_encoder("static", texts=["how do I pay", "how do I pay by card"])
    >>> add_projection(encoder, 16, ["how do I pay", "how do I pay by card"])
    >>> encoder.encode(["how do I pay"]).shape
    (1, 16)
    """
    size = encoder.get_embedding_dimension() or 0
    if dimension >= size:
        raise UserError(f"project: {dimension}, must be below {size}, the numbers in a vector of the encoder")
    directions = np.eye(size, dimension)
    if texts:
        rows = np.random.default_rng(seed).permutation(len(texts))[:TEXTS]
        chosen = [texts[row] for row in sorted(rows.tolist())]
        training = encoder.training
        encoder.eval()
        vectors = np.concatenate([embed(t, token_ids(t, chosen)) for t in dict.fromkeys(towers(encoder))])
        encoder.train(training)
        directions = main_directions(vectors, dimension)
    if isinstance(encoder[-1], Normalize):
        del encoder[-1]
    dense = Dense(size, dimension, bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(torch.from_numpy(directions.T))
    encoder.append(dense.to(encoder.device))
    encoder.append(Normalize())
