"""BERT-like transformers as tensors: the parts of each kind, and the names of their tensors.

A kind is a row of names. The tensors under these names are those of a module of transformers, which train, or those of
a file; nothing here needs transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EMBEDDINGS = "embeddings"  # of tokens, in all kinds
WORDS, POSITIONS, TYPES = (f"{EMBEDDINGS}.{name}_embeddings" for name in ("word", "position", "token_type"))
NORM, DROPOUT = f"{EMBEDDINGS}.LayerNorm", f"{EMBEDDINGS}.dropout"
POOLER = "pooler."  # how the names of tensors begin that take no part in the hidden states
GELU = "gelu"  # the one activation that is known
BUCKETS, FARTHEST = 32, 128  # of distances between tokens, and the tokens beyond which all are in one (MPNet)


@dataclass(frozen=True)
class Linear:
    """A product with a matrix (out, in), and a shift (out,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Norm:
    """A normalisation over the last dimension, with scale and shift (d,)."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., d) to the same."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Layer:
    """A block of a transformer: attention and feed-forward, each followed by its normalisation.

    Attributes:
        projections: of queries, keys and values.
        out: of what the heads have found.
        inner, outer: of the feed-forward half, with GELU between.
        norms: after attention, and after the feed-forward half.
        dropouts: of the attention's probabilities, of what attention adds, and of what the feed-forward half adds.
    """

    projections: tuple[Linear, Linear, Linear]
    out: Linear
    inner: Linear
    outer: Linear
    norms: tuple[Norm, Norm]
    dropouts: tuple[float, float, float]


@dataclass(frozen=True)
class Blocks:
    """The parts of a BERT-like transformer.

    Attributes:
        words: (vocabulary, d) the vectors of tokens.
        positions: (longest, d) those of places.
        types: (kinds, d) those of the types of tokens; None: it has none.
        norm: of their sum.
        dropout: of the normalised sum.
        padding: the id of padding, whose vector is not trained.
        after_padding: whether the rows of `positions` for tokens are those after that of padding; else they begin with
            the first.
        layers: in their order.
        heads: of attention.
        distances: (buckets, heads) what is added to the scores of attention for the distance of two tokens; None:
            nothing is.
    """

    words: Tensor
    positions: Tensor
    types: Tensor | None
    norm: Norm
    dropout: float
    padding: int | None
    after_padding: bool
    layers: Sequence[Layer]
    heads: int
    distances: Tensor | None = None

    def bias(self, longest: int) -> Tensor | None:
        """What is added to all scores of texts of up to `longest` tokens, (heads, longest, longest)."""
        return None if self.distances is None else distance_bias(self.distances, longest)


@dataclass(frozen=True)
class Kind:
    """Where a class of transformers keeps its tensors: names of modules, those of a layer without the layer's own.

    Attributes:
        layers: the list of layers.
        projections, out, inner, outer, norms, dropouts: as in `Layer`; a dropout without a name is zero.
        has_types: whether tokens have types.
        after_padding: as in `Blocks`.
        padding: the id of padding; None: the configuration says it.
        distances: of the table of distances; '': there is none.
        depth, heads, size, inner_size, activation: names in the configuration: numbers of layers and heads, of numbers
            in a vector and inside the feed-forward half, and the activation.
    """

    layers: str
    projections: tuple[str, str, str]
    out: str
    inner: str
    outer: str
    norms: tuple[str, str]
    dropouts: tuple[str, str, str]
    has_types: bool = True
    after_padding: bool = False
    padding: int | None = None
    distances: str = ""
    depth: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    size: str = "hidden_size"
    inner_size: str = "intermediate_size"
    activation: str = "hidden_act"

    @property
    def products(self) -> tuple[str, ...]:
        """The names of a layer's matrices."""
        return (*self.projections, self.out, self.inner, self.outer)


_BERT = Kind(
    "encoder.layer",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
    ("attention.output.LayerNorm", "output.LayerNorm"),
    ("attention.self.dropout", "attention.output.dropout", "output.dropout"),
)
_DISTILBERT = Kind(
    "transformer.layer",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
    ("sa_layer_norm", "output_layer_norm"),
    ("attention.dropout", "", "ffn.dropout"),
    has_types=False,
    depth="n_layers",
    heads="n_heads",
    size="dim",
    inner_size="hidden_dim",
    activation="activation",
)
_MPNET = Kind(
    "encoder.layer",
    ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    "attention.attn.o",
    "intermediate.dense",
    "output.dense",
    ("attention.LayerNorm", "output.LayerNorm"),
    ("attention.attn.dropout", "attention.dropout", "output.dropout"),
    has_types=False,
    after_padding=True,
    padding=1,
    distances="encoder.relative_attention_bias",
)
KINDS = {
    "BertModel": _BERT,
    "RobertaModel": replace(_BERT, after_padding=True),
    "XLMRobertaModel": replace(_BERT, after_padding=True),
    "DistilBertModel": _DISTILBERT,
    "MPNetModel": _MPNET,
}  # class of transformers -> where it keeps its tensors


def blocks_of(
    kind: Kind,
    settings: Callable[[str], Any],
    tensor: Callable[[str], Tensor],
    dropout: Callable[[str], float],
    depth: int,
) -> Blocks:
    """What a transformer consists of.

    Args:
        kind: where it keeps its tensors.
        settings: the name of a setting of its configuration to the value; None where it has none of that name.
        tensor: the name of a tensor to the tensor.
        dropout: the name of a dropout to its probability.
        depth: number of layers.
    """
    eps = settings("layer_norm_eps") or 1e-12

    def linear(name: str) -> Linear:
        return Linear(tensor(f"{name}.weight"), tensor(f"{name}.bias"))

    def norm(name: str) -> Norm:
        return Norm(tensor(f"{name}.weight"), tensor(f"{name}.bias"), eps)

    def layer(start: str) -> Layer:
        query, key, value = (linear(start + name) for name in kind.projections)
        of_attention, of_added, of_inner = (dropout(start + name) if name else 0.0 for name in kind.dropouts)
        first, second = (norm(start + name) for name in kind.norms)
        out, inner, outer = (linear(start + name) for name in (kind.out, kind.inner, kind.outer))
        return Layer((query, key, value), out, inner, outer, (first, second), (of_attention, of_added, of_inner))

    return Blocks(
        tensor(f"{WORDS}.weight"),
        tensor(f"{POSITIONS}.weight"),
        tensor(f"{TYPES}.weight") if kind.has_types else None,
        norm(NORM),
        dropout(DROPOUT),
        settings("pad_token_id") if kind.padding is None else kind.padding,
        kind.after_padding,
        [layer(f"{kind.layers}.{place}.") for place in range(depth)],
        settings(kind.heads),
        tensor(f"{kind.distances}.weight") if kind.distances else None,
    )


def distance_bias(table: Tensor, longest: int) -> Tensor:
    """What the distances of tokens add to the scores of attention: (heads, longest, longest).

    Raffel et al. 2020, section 2.1: half of the `BUCKETS` are for each direction; of these, half are for one distance
    each, and the others for ranges that grow with the logarithm up to `FARTHEST`.

    Args:
        table: (BUCKETS, heads) a number for each bucket and head.
        longest: tokens of a text.

    >>> distance_bias(torch.arange(32.0)[:, None], 3)[0].tolist()
    [[0.0, 17.0, 18.0], [1.0, 0.0, 17.0], [2.0, 1.0, 0.0]]
    """
    places = torch.arange(longest, device=table.device)
    ahead = places[None, :] - places[:, None]
    distance, half = ahead.abs(), BUCKETS // 2
    exact = half // 2
    far = torch.log(distance.float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    ranges = (exact + far.long()).clamp(max=half - 1)
    bucket = half * (ahead > 0) + torch.where(distance < exact, distance, ranges)
    return functional.embedding(bucket, table).permute(2, 0, 1)
