"""The mean of word vectors, read from its folder for inference alone, as `stored` reads transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from qpairs.encoders.batches import by_length
from qpairs.encoders.counter import TokenCounter, library_counter
from qpairs.encoders.packed import GPU_TOKENS, with_length_1
from qpairs.encoders.precision import transformers_fast_in_bf16

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class StoredMean:
    """An encoder that is the mean of word vectors, and what follows: texts to vectors, and nothing that trains.

    Attributes:
        table: (words, numbers of a word's vector).
        tokenizer: texts to their words, as many as are read.
        prompt: what is put before every text.
        steps: linear maps and normalisations of the mean.
        dimension: numbers in a vector.
        unit: whether vectors have length 1.
    """

    table: Tensor
    tokenizer: Tokenizer
    prompt: str
    steps: Sequence[Callable[[dict[str, Tensor]], dict[str, Tensor]]]
    dimension: int
    unit: bool

    @property
    def device(self) -> str:
        """The kind of device that it runs on."""
        return self.table.device.type

    @property
    def fast_bf16(self) -> bool:
        """Whether its linear maps run in bfloat16: on a GPU alone, as `precision.fast_bf16` says of the whole."""
        return torch.cuda.is_available() and transformers_fast_in_bf16()

    def token_ids(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of the words of each text, as `tokens.token_ids`: arrays (length,); several threads may ask."""
        found = self.tokenizer.encode_batch([self.prompt + text for text in texts], add_special_tokens=False)
        return [np.asarray(each.ids, dtype=np.int32) for each in found]

    def embed(self, ids: Sequence[Ids]) -> Floats:
        """Embeddings (n, dimension) in the order of `ids`, as `tokens.embed`."""
        vectors = np.zeros((len(ids), self.dimension), dtype=np.float32)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        with torch.inference_mode():
            for rows in by_length(lengths, GPU_TOKENS):
                words = np.concatenate([np.empty(0, np.int64), *(ids[row] for row in rows)])
                starts = np.cumsum(lengths[rows]) - lengths[rows]
                where = (torch.from_numpy(each).to(self.table.device) for each in (words, starts))
                features = {"sentence_embedding": functional.embedding_bag(next(where), self.table, next(where))}
                for step in self.steps:
                    features = step(features)
                vectors[rows] = features["sentence_embedding"].float().cpu().numpy()
        return with_length_1(vectors) if self.unit else vectors

    @property
    def counter(self) -> TokenCounter:
        """Counts the tokens of whole texts."""
        copy = Tokenizer.from_str(self.tokenizer.to_str())
        return library_counter(copy, prompt=self.prompt, special_tokens=False)
