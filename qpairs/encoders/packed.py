"""Transformers of BERT's kind over packed tokens: those of all texts of a batch one after another, without padding.

The transformer's own parameters are used, by functions that are made for training and serve for encoding, too: its
class, its state and what is saved are as they were. A model of another kind, or with adapters in its layers, is called
as it is. An encoder that was read from its file alone (`stored`) goes through the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from qpairs.core.memory import bound_kernel_caches
from qpairs.encoders.batches import Ints, by_length
from qpairs.encoders.blocks import GELU, KINDS, Blocks, Layer, blocks_of
from qpairs.encoders.dropout import quick_dropout
from qpairs.encoders.fused import Half, attention_half, feed_forward_half

bound_kernel_caches()  # before the first product: no two batches need have one shape

POOLED = ("cls", "mean")
SENTENCE = "sentence_embedding"
CPU_TOKENS, GPU_TOKENS = 512, 8192  # of a batch: on a CPU, what a layer hands to the next stays in the cache
PAIR_TOKENS = 2048  # of a batch of pairs on a CPU: they are longer, and the weights are cast once for each batch


@dataclass(frozen=True)
class PackedEncoder:
    """What an encoder does with packed tokens, or a cross-encoder.

    Attributes:
        blocks: of its transformer.
        pooling: the ways in which tokens are pooled, whose results are concatenated; each one of `POOLED`.
        rest: what follows, each from features to features.
        training: whether something is dropped.
    """

    blocks: Blocks
    pooling: Sequence[str]
    rest: Sequence[Callable[[dict[str, Tensor]], dict[str, Tensor]]]
    training: bool = False


def takes_packed(model: nn.Sequential) -> bool:
    """Whether `packed_outputs` has functions for all that an encoder of one tower, or a cross-encoder, does.

    >>> from qpairs.encoders.build import build_encoder
    >>> takes_packed(build_encoder("tiny", texts=["how do I pay", "how do I pay by card"]))
    True
    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    from qpairs.encoders.readers import is_transformer

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
    return _outputs(packed_encoder(model), packed)


def packed_encoder(model: Any) -> PackedEncoder:
    """What an encoder or a cross-encoder of which `takes_packed` holds does with packed tokens."""
    transformer, pooling, *rest = model
    inner = transformer.model
    kind = KINDS[type(inner).__name__]
    blocks = blocks_of(
        kind,
        lambda name: getattr(inner.config, name, None),
        inner.get_parameter,
        lambda name: inner.get_submodule(name).p,
        len(inner.get_submodule(kind.layers)),
    )
    return PackedEncoder(blocks, _modes(pooling), rest, inner.training)


def packed_vectors(
    encoder: PackedEncoder, ids: Sequence[NDArray[np.int32]], batch_tokens: int | None = None
) -> NDArray[np.float32]:
    """The vectors (n, d) of texts in their order, by batches of about one length; the caller turns gradients off.

    Args:
        encoder: what is done.
        ids: of each text, at least one token.
        batch_tokens: of a batch; a single longer text is a batch of its own. None: what suits the device.

    >>> from qpairs.encoders.build import build_encoder
    >>> from qpairs.encoders.tokens import token_ids
    >>> encoder = build_encoder("tiny", texts=["how do I pay", "how do I pay by card"]).eval()
    >>> with torch.inference_mode():
    ...     packed_vectors(packed_encoder(encoder), token_ids(encoder, ["how do I pay", "pay"])).shape
    (2, 256)
    """
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if encoder.blocks.words.device.type == "cpu" else GPU_TOKENS
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return _by_batches(encoder, lengths, batch_tokens, lambda rows: pack([ids[row] for row in rows]), SENTENCE)


def packed_logits(cross_encoder: PackedEncoder, features: Mapping[str, Any]) -> NDArray[np.float32]:
    """The logits (n,) of n pairs in their order, by batches of about one length; the caller turns gradients off.

    Args:
        cross_encoder: what is done.
        features: of the pairs, as the tokenizer of the cross-encoder has padded them.

    >>> from qpairs.training.cross_encoder import new_cross_encoder
    >>> model = new_cross_encoder("tiny", texts=["how do I pay", "how can I pay"], max_length=8, seed=0).eval()
    >>> with torch.inference_mode():
    ...     packed_logits(packed_encoder(model), model.preprocess([("how do I pay", "how can I pay")])).shape
    (1,)
    """
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor)}
    lengths = tensors["attention_mask"].sum(1).numpy()
    batch_tokens = PAIR_TOKENS if cross_encoder.blocks.words.device.type == "cpu" else GPU_TOKENS

    def packed(rows: Ints) -> dict[str, Any]:
        return pack_padded({name: value[torch.from_numpy(rows)] for name, value in tensors.items()})

    return _by_batches(cross_encoder, lengths, batch_tokens, packed, "scores").reshape(len(lengths))


def _by_batches(
    encoder: PackedEncoder, lengths: Ints, batch_tokens: int, packed: Callable[[Ints], dict[str, Any]], output: str
) -> NDArray[np.float32]:
    """One of the outputs (n, d) for n texts in their order, by batches of about one length.

    Args:
        encoder: what is done.
        lengths: (n,) tokens of the texts.
        batch_tokens: of a batch; a single longer text is a batch of its own.
        packed: rows of texts to their packed tokens, on the CPU.
        output: its name.
    """
    device = encoder.blocks.words.device
    found = np.empty((0, 0), dtype=np.float32)
    for rows in by_length(lengths, batch_tokens):
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in packed(rows).items()}
        part = _outputs(encoder, moved)[output].float().cpu().numpy()
        if not found.size:
            found = np.empty((len(lengths), part.shape[1]), dtype=np.float32)
        found[rows] = part
    return found


def with_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) of about length 1, as a normalisation in bfloat16 leaves them (0.997 to 1.003), of length 1."""
    exact: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return exact


def _outputs(encoder: PackedEncoder, packed: dict[str, Any]) -> dict[str, Tensor]:
    tokens = _tokens(encoder.blocks, packed, encoder.training)
    pooled = [_pooled(tokens, packed, mode) for mode in encoder.pooling]
    features: dict[str, Tensor] = {SENTENCE: torch.cat(pooled, dim=-1)}
    for module in encoder.rest:
        features = module(features)
    return features


def _modes(pooling: Any) -> tuple[str, ...]:
    """How tokens are pooled; what several ways give is concatenated."""
    modes = pooling.pooling_mode
    return (modes,) if isinstance(modes, str) else tuple(modes)


def _tokens(blocks: Blocks, packed: dict[str, Any], training: bool) -> Tensor:
    """The last hidden states (tokens, d), float32."""
    device = packed["input_ids"].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    bias = blocks.bias(max(length for _, length in packed["runs"]))
    with torch.autocast(device, enabled=False):
        x = _embedded(blocks, packed, training)
        half = padded_layer if device == "cuda" else fused_layer
        for layer in blocks.layers:
            x = half(x, layer, blocks.heads, packed, dtype, bias, training)
    return x


def _embedded(blocks: Blocks, packed: dict[str, Any], training: bool) -> Tensor:
    first_place = blocks.padding if blocks.after_padding else None
    x = functional.embedding(packed["input_ids"], blocks.words, blocks.padding)
    if blocks.types is not None:
        types = packed.get("token_types")
        x = x + (blocks.types[0] if types is None else functional.embedding(types, blocks.types))
    x = x + functional.embedding(_positions(packed, first_place), blocks.positions, first_place)
    x = blocks.norm(x)
    if not training:
        return x
    return functional.dropout(x, blocks.dropout) if x.device.type == "cuda" else quick_dropout(x, blocks.dropout)


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


def _is_known(model: Any) -> bool:
    """Whether a transformer is as its class in transformers makes it: plain layers, GELU, no decoder."""
    name, config = type(model).__name__, model.config
    if name not in KINDS or not type(model).__module__.startswith("transformers.models."):
        return False
    kind = KINDS[name]
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return False
    if getattr(config, kind.activation, "") != GELU:
        return False
    products = [layer.get_submodule(part) for layer in model.get_submodule(kind.layers) for part in kind.products]
    plain = all(type(part) is nn.Linear and part.bias is not None for part in products)
    return plain and all(parameter.dtype == torch.float32 for parameter in model.parameters())
