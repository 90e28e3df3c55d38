"""A ready model that is small: the folder of a SentenceTransformer with random word vectors, and a cache of its own."""

from pathlib import Path

import pytest

from qpairs.data.intents import bundled_intents
from qpairs.encoders.build import build_encoder


def sentence_transformer(folder: Path) -> Path:
    """A SentenceTransformer that was never trained on pairs, saved in a folder."""
    encoder = build_encoder("static", texts=list(bundled_intents()))
    encoder.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    return folder


def own_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Ready models are kept in a folder of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(folder))


def tickets(file: Path, domain: str = "travel", limit: int = 150) -> Path:
    """A CSV of bundled questions of one domain, with ids, and a column that is no text."""
    texts = [text for text, intent in bundled_intents().items() if intent.startswith(f"{domain}/")][:limit]
    lines = [f'T{row},"{text.replace(chr(34), chr(34) * 2)}",open' for row, text in enumerate(texts)]
    file.write_text("\n".join(["ticket,title,state", *lines]) + "\n", encoding="utf-8")
    return file
