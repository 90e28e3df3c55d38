"""Transformers of BERT's kind over packed tokens: those of all texts of a batch one after another, without padding.

The transformer's own parameters are used, by functions that are made for training: its class, its state and what is
saved are as they were. A model of another kind, or with adapters in its layers, is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn import functional

from qpairs.encoders.fused import Half, attention_half, feed_forward_half
from qpairs.encoders.readers import is_transformer

POOLED = ("cls", "mean")


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

    projections: tuple[nn.Linear, nn.Linear, nn.Linear]
    out: nn.Linear
    inner: nn.Linear
    outer: nn.Linear
    norms: tuple[nn.LayerNorm, nn.LayerNorm]
    dropouts: tuple[float, float, float]


@dataclass(frozen=True)
class Blocks:
    """What a transformer of BERT's kind consists of.

    Attributes:
        embeddings: the module with `word_embeddings`, `position_embeddings`, `LayerNorm` and `dropout`.
        padding: the id of padding, after whose row of the position embeddings come those of the tokens; None: they
            begin with the first row.
        layers: in their order.
        heads: of attention.
        bias: from the longest length n to what is added to all scores, (heads, n, n); None: nothing is.
    """

    embeddings: Any
    padding: int | None
    layers: Sequence[Layer]
    heads: int
    bias: Callable[[int], Tensor] | None = None


def takes_packed(model: nn.Sequential) -> bool:
    """Whether `packed_outputs` has functions for all that an encoder of one tower, or a cross-encoder, does.

    >>> from qpairs.encoders.build import build_encoder
    >>> takes_packed(build_encoder("tiny", texts=["how do I pay", "how do I pay by card"]))
    True
    """
    if not is_transformer(model) or len(model) < 2:
        return False
    transformer: Any = model[0]
    pooling = model[1]
    if not isinstance(pooling, Pooling) or not pooling.include_prompt or not set(_modes(pooling)) <= set(POOLED):
        return False
    return _is_known(transformer.model)


def pack(ids: Sequence[NDArray[np.int32]]) -> dict[str, Any]:
    """What `packed_outputs` takes, on the CPU: the token ids of n texts, each of at least one token.

    `input_ids`, `positions` (tokens,) and `lengths` (n,) int64; `runs`, how many texts of one length follow each other.

    >>> packed = pack([np.array([2, 8, 3]), np.array([2, 9, 3]), np.array([2, 5, 6, 3])])
    >>> packed["runs"], packed["positions"].tolist()
    ([(2, 3), (1, 4)], [0, 1, 2, 0, 1, 2, 0, 1, 2, 3])
    """
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int64)
    return _packed(torch.from_numpy(flat), lengths)


def pack_padded(features: Mapping[str, Any]) -> dict[str, Any]:
    """The same of what a tokenizer has padded: `input_ids` and `attention_mask` (n, tokens).

    Where they have `token_type_ids`, which tell the texts of a pair apart, `token_types` (tokens,) are those.

    >>> pack_padded({"input_ids": torch.tensor([[2, 8, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])})["runs"]
    [(1, 3)]
    """
    real = features["attention_mask"].bool()
    packed = _packed(features["input_ids"][real], real.sum(1).numpy())
    if "token_type_ids" in features:
        packed["token_types"] = features["token_type_ids"][real]
    return packed


def _packed(ids: Tensor, lengths: NDArray[np.int64]) -> dict[str, Any]:
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return {
        "input_ids": ids,
        "positions": torch.from_numpy(np.arange(len(ids)) - starts),
        "lengths": torch.from_numpy(lengths),
        "runs": [(len(list(same)), length) for length, same in groupby(lengths.tolist())],
    }


def outputs(model: nn.Module, features: dict[str, Any]) -> dict[str, Tensor]:
    """What a model makes of features, whether these are packed or padded.

    Args:
        model: an encoder or a cross-encoder.
        features: from `pack` or `pack_padded`, if `takes_packed` holds of it; else as its tokenizer makes them.

    >>> from qpairs.encoders.build import build_encoder
    >>> encoder = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"])
    >>> outputs(encoder, encoder.preprocess(["how do I pay"]))["sentence_embedding"].shape
    torch.Size([1, 256])
    """
    if "runs" in features:
        return packed_outputs(model, features)
    found: dict[str, Tensor] = model(features)
    return found


def packed_outputs(model: Any, packed: dict[str, Any]) -> dict[str, Tensor]:
    """What a model's modules make of n texts, as the model itself, up to rounding: `sentence_embedding` (n, d), ...

    Under autocast the products are of its type; sums, softmax and normalisation are in float32.

    Args:
        model: of which `takes_packed` holds.
        packed: from `pack` or `pack_padded`, on the model's device.

    >>> from qpairs.encoders.build import build_encoder
    >>> from qpairs.encoders.tokens import token_ids
    >>> encoder = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"])
    >>> packed_outputs(encoder, pack(token_ids(encoder, ["how do I pay", "pay"])))["sentence_embedding"].shape
    torch.Size([2, 256])
    """
    transformer, pooling, *rest = model
    tokens = _tokens(transformer.model, packed)
    pooled = [_pooled(tokens, packed, mode) for mode in _modes(pooling)]
    features: dict[str, Tensor] = {"sentence_embedding": torch.cat(pooled, dim=-1)}
    for module in rest:
        features = module(features)
    return features


def _modes(pooling: Pooling) -> tuple[str, ...]:
    """How tokens are pooled; what several ways give is concatenated."""
    modes = pooling.pooling_mode
    return (modes,) if isinstance(modes, str) else tuple(modes)


def _tokens(model: Any, packed: dict[str, Any]) -> Tensor:
    """The last hidden states (tokens, d), float32."""
    blocks = KINDS[type(model).__name__](model)
    device = packed["input_ids"].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    bias = None
    if blocks.bias is not None:
        bias = blocks.bias(max(length for _, length in packed["runs"]))
    with torch.autocast(device, enabled=False):
        x = _embedded(blocks, packed)
        half = padded_layer if device == "cuda" else fused_layer
        for layer in blocks.layers:
            x = half(x, layer, blocks.heads, packed, dtype, bias, model.training)
    return x


def _embedded(blocks: Blocks, packed: dict[str, Any]) -> Tensor:
    parts = blocks.embeddings
    x = parts.word_embeddings(packed["input_ids"])
    if hasattr(parts, "token_type_embeddings"):
        types = packed.get("token_types")
        x = x + (parts.token_type_embeddings.weight[0] if types is None else parts.token_type_embeddings(types))
    x = x + parts.position_embeddings(_positions(packed, blocks.padding))
    embedded: Tensor = parts.dropout(parts.LayerNorm(x))
    return embedded


def _positions(packed: dict[str, Any], padding: int | None) -> Tensor:
    """The rows (tokens,) of the position embeddings; RoBERTa's kind counts tokens that are not the padding."""
    positions: Tensor = packed["positions"]
    if padding is None:
        return positions
    real = packed["input_ids"].ne(padding).long()
    count = real.cumsum(0)
    first = torch.arange(len(real), device=real.device) - positions  # of the text of each token
    counted: Tensor = (count - count[first] + real[first]) * real + padding
    return counted


def _pooled(x: Tensor, packed: dict[str, Any], mode: str) -> Tensor:
    """One vector for each text: the mean of its tokens, or the first."""
    if mode == "cls":
        first: Tensor = packed["lengths"].cumsum(0) - packed["lengths"]
        return x.index_select(0, first)
    runs = torch.split(x, [n * length for n, length in packed["runs"]])
    shapes = zip(runs, packed["runs"], strict=True)
    return torch.cat([run.view(n, length, -1).mean(1) for run, (n, length) in shapes])


# One layer


def fused_layer(
    x: Tensor, layer: Layer, heads: int, packed: dict[str, Any], dtype: torch.dtype, bias: Tensor | None, training: bool
) -> Tensor:
    """A layer by the functions of `fused`: (tokens, d) float32 to the same; the weights are cast once."""
    first, second = layer.norms
    of_attention, of_added, of_inner = layer.dropouts if training else (0.0, 0.0, 0.0)
    weights, shifts = ([getattr(part, name) for part in layer.projections] for name in ("weight", "bias"))
    attention = Half(packed["runs"], heads, first.eps, of_added, of_attention)
    x = attention_half(
        x,
        (torch.cat(weights).to(dtype), torch.cat(shifts).to(dtype)),
        (layer.out.weight.to(dtype), layer.out.bias.to(dtype)),
        (first.weight, first.bias),
        attention,
        bias,
    )
    return feed_forward_half(
        x,
        (layer.inner.weight.to(dtype), layer.inner.bias.to(dtype)),
        (layer.outer.weight.to(dtype), layer.outer.bias.to(dtype)),
        (second.weight, second.bias),
        Half(packed["runs"], heads, second.eps, of_inner),
    )


def padded_layer(
    x: Tensor, layer: Layer, heads: int, packed: dict[str, Any], dtype: torch.dtype, bias: Tensor | None, training: bool
) -> Tensor:
    """The same by torch's own operations, padded for the attention alone: for a GPU, which wants few large calls."""
    first, second = layer.norms
    of_attention, of_added, of_inner = layer.dropouts if training else (0.0, 0.0, 0.0)
    lengths, longest = packed["lengths"], max(length for _, length in packed["runs"])
    n, tokens = len(lengths), len(x)
    columns = torch.arange(longest, device=x.device)
    places = ((lengths.cumsum(0) - lengths)[:, None] + columns).clamp(max=tokens - 1)  # (n, longest)
    mask = torch.zeros(n, 1, 1, longest, device=x.device, dtype=dtype)
    mask = mask.masked_fill((columns >= lengths[:, None])[:, None, None], -torch.inf)
    if bias is not None:
        mask = mask + bias.to(dtype)
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        query, key, value = (
            part(x).index_select(0, places.flatten()).view(n, longest, heads, -1).transpose(1, 2)
            for part in layer.projections
        )
        found = functional.scaled_dot_product_attention(query, key, value, mask, of_attention)
        rows = torch.repeat_interleave(torch.arange(n, device=x.device) * longest, lengths, output_size=tokens)
        found = found.transpose(1, 2).reshape(n * longest, -1).index_select(0, rows + packed["positions"])
        x = first(x + functional.dropout(layer.out(found), of_added))
        inner = functional.gelu(layer.inner(x))
        out: Tensor = second(x + functional.dropout(layer.outer(inner), of_inner))
    return out


# Kinds of transformers


def _bert(model: Any) -> Blocks:
    layers = [
        Layer(
            (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
            layer.attention.output.dense,
            layer.intermediate.dense,
            layer.output.dense,
            (layer.attention.output.LayerNorm, layer.output.LayerNorm),
            (layer.attention.self.dropout.p, layer.attention.output.dropout.p, layer.output.dropout.p),
        )
        for layer in model.encoder.layer
    ]
    return Blocks(model.embeddings, None, layers, model.config.num_attention_heads)


def _roberta(model: Any) -> Blocks:
    blocks = _bert(model)
    return Blocks(blocks.embeddings, model.embeddings.padding_idx, blocks.layers, blocks.heads)


def _distilbert(model: Any) -> Blocks:
    layers = [
        Layer(
            (layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
            layer.attention.out_lin,
            layer.ffn.lin1,
            layer.ffn.lin2,
            (layer.sa_layer_norm, layer.output_layer_norm),
            (layer.attention.dropout.p, 0.0, layer.ffn.dropout.p),
        )
        for layer in model.transformer.layer
    ]
    return Blocks(model.embeddings, None, layers, model.config.n_heads)


def _mpnet(model: Any) -> Blocks:
    layers = [
        Layer(
            (layer.attention.attn.q, layer.attention.attn.k, layer.attention.attn.v),
            layer.attention.attn.o,
            layer.intermediate.dense,
            layer.output.dense,
            (layer.attention.LayerNorm, layer.output.LayerNorm),
            (layer.attention.attn.dropout.p, layer.attention.dropout.p, layer.output.dropout.p),
        )
        for layer in model.encoder.layer
    ]

    def bias(longest: int) -> Tensor:
        """By the distance between two tokens (Raffel et al. 2020, section 2.1)."""
        like = model.encoder.relative_attention_bias.weight.new_empty(1, longest)
        found: Tensor = model.encoder.compute_position_bias(like)[0]
        return found

    return Blocks(model.embeddings, model.embeddings.padding_idx, layers, model.config.num_attention_heads, bias)


KINDS: dict[str, Callable[[Any], Blocks]] = {
    "BertModel": _bert,
    "RobertaModel": _roberta,
    "XLMRobertaModel": _roberta,
    "DistilBertModel": _distilbert,
    "MPNetModel": _mpnet,
}  # class of transformers -> what it consists of


def _is_known(model: Any) -> bool:
    """Whether a transformer is as its class in transformers makes it: plain layers, GELU, no decoder."""
    kind, config = type(model), model.config
    if kind.__name__ not in KINDS or not kind.__module__.startswith("transformers.models."):
        return False
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return False
    if getattr(config, "hidden_act", getattr(config, "activation", "")) != "gelu":
        return False
    plain = all(
        type(part) is nn.Linear and part.bias is not None
        for layer in KINDS[kind.__name__](model).layers
        for part in (*layer.projections, layer.out, layer.inner, layer.outer)
    )
    return plain and all(parameter.dtype == torch.float32 for parameter in model.parameters())
