"""A cross-encoder that torch runs: `sentence_transformers.CrossEncoder`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import nn

from qpairs.core.exceptions import UserError
from qpairs.encoders.packed import packed_encoder, packed_logits, takes_packed
from qpairs.encoders.precision import fast_bf16
from qpairs.models.base import Floats
from qpairs.models.pair_reader import PairReader, without_long_ends

BATCH = 64  # texts that are read at a time, of about one length


class TorchPairs:
    """A `PairReader` that uses a `CrossEncoder`, in bfloat16 if this machine is fast at it.

    On a CPU, a BERT-like model reads packed tokens, which takes at most two thirds of the time.
    """

    def __init__(self, cross_encoder: CrossEncoder, *, both_orders: bool = True) -> None:
        """Binds a cross-encoder of one logit.

        Args:
            cross_encoder: is used by one thread at a time.
            both_orders: whether each pair is read in both orders; or, in half the time, in the given one.
        """
        self.cross_encoder, self.both_orders = cross_encoder.eval(), both_orders
        self._bf16 = fast_bf16(cross_encoder)
        plain = cross_encoder.device.type == "cpu" and not getattr(cross_encoder, "default_prompt_name", None)
        self._packs = plain and takes_packed(cross_encoder)
        self._lock = threading.Lock()  # the tokenizers of transformers change their own settings

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """Logits (n,) that pairs are duplicates, in their order: the mean over the orders in which each is read."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        model = self.cross_encoder
        with (
            self._lock,
            torch.inference_mode(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=self._bf16),
        ):
            if model.tokenizer.is_fast and model.max_seq_length:
                pairs = without_long_ends(pairs, model.max_seq_length, self._ends)
            texts = [*pairs, *(pair[::-1] for pair in pairs)] if self.both_orders else list(pairs)
            if self._packs:
                found = packed_logits(packed_encoder(model), model.preprocess(texts))
            else:
                found = model.predict(texts, batch_size=BATCH, activation_fn=nn.Identity(), show_progress_bar=False)
        logits: Floats = np.asarray(found, dtype=np.float32).reshape(-1, len(pairs)).mean(axis=0)
        return logits

    def _ends(self, texts: list[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "truncation": False, "return_offsets_mapping": True, "verbose": False}
        found = self.cross_encoder.tokenizer(texts, **options)["offset_mapping"]
        return [[end for _, end in offsets] for offsets in found]


def load_cross_encoder(name: str | Path, *, local: bool = True) -> CrossEncoder:
    """A `CrossEncoder` of one logit, in float32 and from safetensors alone, from a folder or the Hub.

    Args:
        name: folder or Hub id.
        local: whether the Hub must not be asked.

    Raises:
        UserError: it cannot be loaded, or gives more than one number.
    """
    try:
        model: CrossEncoder = CrossEncoder(
            str(name), local_files_only=local, model_kwargs={"dtype": torch.float32, "use_safetensors": True}
        )
    except Exception as error:  # no network, missing files, broken JSON, foreign classes, tensors that don't fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot load the cross-encoder {str(name)!r}: {reason}; copy or train it again") from error
    if model.num_labels != 1:
        raise UserError(f"{name}: gives {model.num_labels} numbers for a pair; exactly one, a logit, is needed")
    return model


def open_torch_pairs(path: Path) -> PairReader:
    """The reader of a cross-encoder's folder.

    Raises:
        UserError: it cannot be loaded.
    """
    return TorchPairs(load_cross_encoder(path))
