"""Low-rank adapters (LoRA, Hu et al. 2022): a large transformer is trained through few parameters, then merged.

A frozen weight W (d, k) is read as W + s B A, and only A (r, k) and B (d, r) are trained; B starts at zero. After
training the product is added to W, so that the encoder is the plain one that it was.
"""

from __future__ import annotations

import logging
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from torch import nn

from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.encoders.build import takes_lora
from qpairs.encoders.pretrained import seeded
from qpairs.encoders.readers import is_transformer
from qpairs.encoders.towers import towers

log = logging.getLogger(__name__)

SCALE = 2  # s of W + s B A, whatever the rank
UNUSED = "pooler."  # of BERT, and takes no part in an embedding
STATE_BYTES = 12  # of a trained parameter: its gradient and the two moments of Adam


def check_adapters(encoder: SentenceTransformer, name: str) -> None:
    """Checks that an encoder can have adapters.

    Args:
        encoder: what is to be trained.
        name: its name.

    Raises:
        UserError: it is not a transformer or not pretrained, or peft is not installed.
    """
    if not takes_lora(name) or not all(is_transformer(tower) for tower in towers(encoder)):
        raise UserError(f"lora: is for a pretrained transformer, which {name} is not; leave out --lora")
    require("peft", "lora")


def add_adapters(encoder: SentenceTransformer, rank: int, *, dropout: float = 0.0, seed: int = 0) -> None:
    """Puts adapters on all linear layers of an encoder's transformers; everything else in it is frozen.

    Args:
        encoder: of one tower or two, each a transformer.
        rank: r above, at least 1.
        dropout: of what the adapters read, in training.
        seed: of the random A.

    Raises:
        UserError: peft is not installed.
    """
    peft = require("peft", "lora")
    total = sum(parameter.numel() for parameter in encoder.parameters())
    encoder.requires_grad_(False)
    options = {"lora_alpha": SCALE * rank, "lora_dropout": dropout, "target_modules": "all-linear"}
    with seeded(seed):
        for tower in dict.fromkeys(towers(encoder)):
            model: Any = tower[0].model
            unused = [name for name, _ in model.named_modules() if name.startswith(UNUSED)]
            peft.inject_adapter_in_model(peft.LoraConfig(r=rank, exclude_modules=unused or None, **options), model)
    for module in encoder:
        if isinstance(module, Dense):  # a projection that is not pretrained
            module.requires_grad_(True)
    trained = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    log.info(
        "lora: %s of %s parameters are trained; gradients and optimizer take %.0f MB, not %.0f MB",
        f"{trained:,}",
        f"{total:,}",
        STATE_BYTES * trained / 1e6,
        STATE_BYTES * total / 1e6,
    )


def merge_adapters(encoder: SentenceTransformer) -> None:
    """Adds the adapters of an encoder to its weights, and takes them out: its layers are plain ones again."""
    layer_type = require("peft.tuners.tuners_utils", "lora").BaseTunerLayer
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, layer_type):
                setattr(module, name, _merged(child))
        if hasattr(module, "peft_config"):
            del module.peft_config
    encoder.requires_grad_(True)


def _merged(layer: Any) -> nn.Module:
    layer.merge()
    merged: nn.Module = layer.get_base_layer()
    return merged
