"""Encoders read from their folders for inference alone, without sentence-transformers and transformers.

Their import takes seconds. What is read here is known exactly: a transformer of BERT's kind, a WordPiece tokenizer and
pooling, or word vectors and their mean; linear maps and normalisation. Of a folder that holds anything else, or
something damaged, nothing is made, and the caller asks `pretrained.load_encoder`, which reads all kinds and tells what
is wrong.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from qpairs.core.manifests import read_json
from qpairs.core.shapes import anything, each, named
from qpairs.encoders.blocks import BUCKETS, GELU, KINDS, POOLER, Blocks, Kind, blocks_of
from qpairs.encoders.build import MODULES
from qpairs.encoders.counter import TokenCounter, library_counter
from qpairs.encoders.packed import POOLED, PackedEncoder, packed_vectors, with_length_1
from qpairs.encoders.precision import transformers_fast_in_bf16
from qpairs.encoders.stored_mean import StoredMean
from qpairs.encoders.wordpiece import FILE, known_tokenizer, require

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]
Step = Callable[[dict[str, Tensor]], dict[str, Tensor]]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
STATIC = "StaticEmbedding"  # the module that is the mean of word vectors
CLASSES = {"bert": "BertModel", "distilbert": "DistilBertModel", "mpnet": "MPNetModel"}  # by `model_type`
FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "relative_attention_num_buckets": BUCKETS,
}  # settings of a transformer that must have these values, if they are there
SIZES = ("vocab_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id", "model_type")
NO_MATTER = (
    *("_name_or_path", "architectures", "attention_dropout", "attention_probs_dropout_prob", "bos_token_id"),
    *("classifier_dropout", "directionality", "dropout", "dtype", "eos_token_id", "gradient_checkpointing"),
    *("hidden_dropout_prob", "id2label", "initializer_range", "label2id", "output_past", "pooler_fc_size"),
    *("pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "qa_dropout"),
    *("seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings", "torch_dtype"),
    *("transformers_version", "use_cache"),
)  # other settings, on which no vector depends
TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
OF_TRANSFORMER = {
    "do_lower_case": False,
    "transformer_task": "feature-extraction",
    "modality_config": TEXT_ONLY,
    "module_output_name": "token_embeddings",
}
VECTOR = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def _same(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.nn.modules.linear.Identity": _same,
    "torch.nn.modules.activation.Tanh": torch.tanh,
}
OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}  # flags of versions before 6, in the order in which vectors are joined -> the name of the way
OTHER_FILES = ("adapter_config.json", "added_tokens.json")  # that change what the others say


@dataclass(frozen=True)
class Map:
    """A linear map of vectors, and what is done with each number then.

    Attributes:
        weight: (numbers of a vector, numbers before).
        bias: (numbers of a vector,); None: none.
        activation: what is done with each number.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Callable[[Tensor], Tensor]

    def __call__(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features with other vectors."""
        mapped = functional.linear(features["sentence_embedding"], self.weight, self.bias)
        return {"sentence_embedding": self.activation(mapped)}


@dataclass(frozen=True)
class StoredEncoder:
    """An encoder of one tower that was read from its folder: texts to vectors, and nothing that trains.

    Attributes:
        encoder: what is done with tokens.
        tokenizer: texts to all their tokens.
        limit: tokens of a text that are read; None: all.
        prompt: what is put before every text.
        dimension: numbers in a vector.
        unit: whether vectors have length 1.
    """

    encoder: PackedEncoder
    tokenizer: Tokenizer
    limit: int | None
    prompt: str
    dimension: int
    unit: bool

    @property
    def device(self) -> str:
        """The kind of device that it runs on."""
        return self.encoder.blocks.words.device.type

    @property
    def fast_bf16(self) -> bool:
        """Whether it runs faster in bfloat16 here."""
        return transformers_fast_in_bf16()

    def token_ids(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text, as `tokens.token_ids`: arrays (length,); several threads may ask."""
        found = self.tokenizer.encode_batch_fast([self.prompt + text for text in texts])
        return [np.asarray(self._cut(each.ids), dtype=np.int32) for each in found]

    def _cut(self, ids: list[int]) -> list[int]:
        """Without what is too long; the last token, which ends a text, stays."""
        return ids if self.limit is None or len(ids) <= self.limit else [*ids[: self.limit - 1], ids[-1]]

    def embed(self, ids: Sequence[Ids]) -> Floats:
        """Embeddings (n, dimension) in the order of `ids`, as `tokens.embed`."""
        if not ids:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with torch.inference_mode():
            vectors = packed_vectors(self.encoder, ids)
        return with_length_1(vectors) if self.unit else vectors

    @property
    def counter(self) -> TokenCounter:
        """Counts the tokens of whole texts."""
        return library_counter(self.tokenizer, prompt=self.prompt, longest=self.limit)


def read_stored(folder: Path) -> StoredEncoder | StoredMean | None:
    """The encoder in a folder, on the device that sentence-transformers would choose; None: it is not known exactly.

    >>> import tempfile
    >>> from qpairs.encoders.build import build_encoder
    >>> place = Path(tempfile.mkdtemp())
    >>> build_encoder("tiny", texts=["how do I pay", "how do I pay by card"]).save_pretrained(str(place))
    >>> stored = read_stored(place)
    >>> stored.embed(stored.token_ids(["how do I pay"])).shape
    (1, 256)
    """
    try:
        return _read(folder)
    except Exception as error:  # a file that is missing or damaged, too; tokenizers raises no narrower one
        log.debug("%s: is read by sentence-transformers: %s", folder, error or type(error).__name__)
        return None


def _read(folder: Path) -> StoredEncoder | StoredMean:
    require(not any((folder / name).exists() for name in OTHER_FILES), "adapters or added tokens")
    places = _modules(folder)
    return _read_mean(folder, places) if places[0][0] == STATIC else _read_transformer(folder, places)


def _read_mean(folder: Path, places: Sequence[tuple[str, str]]) -> StoredMean:
    own, unit = folder / places[0][1], places[-1][0] == "Normalize"
    prompt, rest = _prompt(folder), [_step(name, folder / place) for name, place in places[1:]]
    weights = load_file(own / WEIGHTS)
    require(weights.keys() == {"embedding.weight"}, f"tensors {sorted(weights)}")
    table = weights["embedding.weight"]
    require(table.dtype == torch.float32 and table.ndim == 2, f"word vectors of type {table.dtype}")
    tokenizer = Tokenizer.from_file(str(own / FILE))
    tokenizer.no_padding()
    require(tokenizer.get_vocab_size() <= len(table), "fewer word vectors than words")
    sizes, device = [table.shape[1], *(size for _, size in rest if size)], _device()
    steps = [make(device) for make, _ in rest]
    return StoredMean(_own_copy(table, device), tokenizer, prompt, steps, sizes[-1], unit)


def _read_transformer(folder: Path, places: Sequence[tuple[str, str]]) -> StoredEncoder:
    settings = _json(folder / CONFIG)
    kind, own = KINDS[CLASSES[settings["model_type"]]], _own_settings(folder, places[0][1])
    _check_settings(kind, settings)
    dimension = settings[kind.size]
    pooling = _pooling(folder / places[1][1], dimension)
    prompt, rest = _prompt(folder), [_step(name, folder / place) for name, place in places[2:]]
    sizes = [size for _, size in rest if size]
    tokenizer, longest = known_tokenizer(folder)
    limit = own if own is not None else min(longest, settings["max_position_embeddings"])
    device = _device()
    steps = [make(device) for make, _ in rest]
    return StoredEncoder(
        PackedEncoder(_blocks(folder / WEIGHTS, kind, settings, device), pooling, steps),
        tokenizer,
        limit,
        prompt,
        sizes[-1] if sizes else dimension * len(pooling),
        places[-1][0] == "Normalize",
    )


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(file, named(anything), missing=f"{file}: missing")
    return found


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Class and folder of each module: a transformer and its pooling, or word vectors; and what follows."""
    found = []
    for row in read_json(folder / MODULES, each(named(anything)), missing="no modules"):
        require(row.keys() <= {"idx", "name", "path", "type"}, f"a module with {sorted(row)}")
        require(row["type"].startswith("sentence_transformers."), f"a module {row['type']}")
        found.append((row["type"].rpartition(".")[2], row["path"]))
    names = [name for name, _ in found]
    first = 1 if names[:1] == [STATIC] else 2
    require(names[:first] in ([STATIC], ["Transformer", "Pooling"]), f"modules {names}")
    require({*names[first:]} <= {"Normalize", "Dense"}, f"modules {names}")
    require(first == 1 or not found[0][1], "a transformer in a folder of its own")
    return found


def _own_settings(folder: Path, place: str) -> int | None:
    """The greatest length that the settings of the module of the transformer say."""
    own = _json(folder / place / "sentence_bert_config.json")
    longest = own.pop("max_seq_length", None)
    require(all(name in OF_TRANSFORMER and own[name] == OF_TRANSFORMER[name] for name in own), f"settings {own}")
    require(longest is None or longest > 2, f"a length of {longest}")
    return None if longest is None else int(longest)


def _check_settings(kind: Kind, settings: Mapping[str, Any]) -> None:
    """Of the transformer: all are known, and those that choose between ways of computing are as they must be."""
    fixed = {**FIXED, kind.activation: GELU}
    known = {*SIZES, *NO_MATTER, *fixed, kind.depth, kind.heads, kind.size, kind.inner_size}
    require(settings.keys() <= known, f"settings {sorted(settings.keys() - known)}")
    for name, value in fixed.items():
        require(settings.get(name, value) == value, f"{name} {settings.get(name)!r}")
    require(kind.activation in settings, "no activation")


def _pooling(folder: Path, dimension: int) -> tuple[str, ...]:
    own = _json(folder / CONFIG)
    flags = [mode for flag, mode in OLD_POOLING.items() if own.pop(flag, False)]
    modes = own.pop("pooling_mode", None) or flags
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    size = own.pop("embedding_dimension", None) or own.pop("word_embedding_dimension", None)
    require(bool(modes) and {*modes} <= {*POOLED}, f"pooling {modes}")
    require(own.pop("include_prompt", True) is True and not own and size == dimension, f"pooling {own}")
    return modes


def _prompt(folder: Path) -> str:
    own = _json(folder / "config_sentence_transformers.json")
    require(own.get("model_type", "SentenceTransformer") == "SentenceTransformer", f"a {own.get('model_type')}")
    known = {"__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name"}
    require(own.keys() <= known, f"settings {sorted(own.keys() - known)}")
    prompts, name = own.get("prompts") or {}, own.get("default_prompt_name")
    require(name is None or name in prompts, f"no prompt {name!r}")
    return prompts.get("") or prompts.get(name or "") or ""


def _step(name: str, folder: Path) -> tuple[Callable[[torch.device], Step], int]:
    """What a module after the pooling does, once its device is known, and the numbers that it makes; 0: as many."""
    if name == "Normalize":
        own = _json(folder / CONFIG) if (folder / CONFIG).exists() else {}
        require(all(VECTOR.get(key) == value for key, value in own.items()), f"normalises {own}")
        return (lambda device: _normalised), 0
    own = {**VECTOR, **_json(folder / CONFIG)}
    sizes = own.pop("out_features"), own.pop("in_features")
    has_bias, activation = own.pop("bias"), ACTIVATIONS[own.pop("activation_function")]
    require(own == VECTOR, f"a linear map with {own}")
    weights = load_file(folder / WEIGHTS)
    require(weights.keys() == {"linear.weight", *(["linear.bias"] if has_bias else [])}, f"tensors {sorted(weights)}")
    require(weights["linear.weight"].shape == sizes, "another shape of a linear map")

    def make(device: torch.device) -> Step:
        bias = _own_copy(weights["linear.bias"], device) if has_bias else None
        return Map(_own_copy(weights["linear.weight"], device), bias, activation)

    return make, sizes[0]


def _normalised(features: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"sentence_embedding": functional.normalize(features["sentence_embedding"], p=2, dim=-1)}


def _own_copy(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of a file in memory, which stays as it is whatever happens to the file."""
    require(tensor.is_floating_point(), f"numbers of type {tensor.dtype}")
    return tensor.to(device, torch.float32, copy=True)


def _blocks(file: Path, kind: Kind, settings: Mapping[str, Any], device: torch.device) -> Blocks:
    weights = load_file(file)
    blocks = blocks_of(
        kind, settings.get, lambda name: _own_copy(weights.pop(name), device), lambda name: 0.0, settings[kind.depth]
    )
    rest = [name for name in weights if not name.startswith(POOLER) and not name.endswith("position_ids")]
    require(not rest, f"tensors {rest[:3]}")
    _check_shapes(blocks, kind, settings)
    return blocks


def _check_shapes(blocks: Blocks, kind: Kind, settings: Mapping[str, Any]) -> None:
    d, inner, heads = settings[kind.size], settings[kind.inner_size], settings[kind.heads]
    wanted: list[tuple[Tensor | None, tuple[int, ...]]] = [
        (blocks.words, (settings["vocab_size"], d)),
        (blocks.positions, (settings["max_position_embeddings"], d)),
        (blocks.types, (settings.get("type_vocab_size", 0), d)),
        (blocks.distances, (BUCKETS, heads)),
    ]
    products, norms = [], [blocks.norm]
    for layer in blocks.layers:
        products += [(part, (d, d)) for part in (*layer.projections, layer.out)]
        products += [(layer.inner, (inner, d)), (layer.outer, (d, inner))]
        norms += layer.norms
    wanted += [(product.weight, shape) for product, shape in products]
    wanted += [(product.bias, shape[:1]) for product, shape in products]
    wanted += [(tensor, (d,)) for norm in norms for tensor in (norm.weight, norm.bias)]
    require(all(tensor is None or tensor.shape == shape for tensor, shape in wanted), "tensors of other shapes")
    require(d % heads == 0, f"{heads} heads of {d} numbers")


def _device() -> torch.device:
    """As `SentenceTransformer` chooses it in one process: a GPU of NVIDIA or Apple where there is one, else the CPU."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return torch.device("cpu")
    require(kind.type in ("cuda", "mps"), f"a device of type {kind}")
    require("LOCAL_RANK" not in os.environ and not torch.distributed.is_initialized(), "several processes")
    return torch.device(kind.type, 0)
