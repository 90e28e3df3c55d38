"""The token of a Milvus cluster goes to an address that the user gave, never to one that a folder names."""

from pathlib import Path
from typing import Any

import pytest

from qpairs.core.exceptions import UserError
from qpairs.retrieval.index.base import Manifest
from qpairs.retrieval.index.milvus import MilvusIndex

pymilvus = pytest.importorskip("pymilvus")
MINE, FOREIGN = "https://milvus.my.site:19530", "https://evil.example:19530"


class Client:
    """Keeps what it was connected with, and has every collection."""

    tokens: list[tuple[str, str]]

    def __init__(self, uri: str, token: str) -> None:
        self.tokens.append((uri, token))

    def load_collection(self, name: str) -> None:
        """Loads nothing."""

    def has_collection(self, name: str) -> bool:
        return True


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    Client.tokens = []
    monkeypatch.setattr(pymilvus, "MilvusClient", Client)
    monkeypatch.setenv("MILVUS_TOKEN", "s3cret")
    monkeypatch.delenv("MILVUS_URI", raising=False)
    return Client.tokens


def manifest(uri: str) -> Manifest:
    return Manifest("exact", 1, 2, "a" * 16, "model", "left", 1.0, 1, f"milvus:{uri}#questions", {})


def opened(uri: str) -> MilvusIndex:
    return MilvusIndex.open(Path(), manifest(uri), growing=False)


def test_the_address_of_a_folder_gets_no_token(tokens: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"{FOREIGN}.*set MILVUS_URI"):
        opened(FOREIGN)
    monkeypatch.setenv("MILVUS_URI", MINE)
    with pytest.raises(UserError, match=FOREIGN):
        opened(FOREIGN)
    assert tokens == []


def test_the_users_own_address_gets_it(tokens: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_URI", f"{MINE}/")
    opened(MINE)
    assert tokens == [(MINE, "s3cret")]


def test_so_does_the_one_at_which_an_index_is_made(tokens: list[tuple[str, str]]) -> None:
    embeddings: Any = object()
    with pytest.raises(UserError, match="exists already"):  # connected, and nothing is made
        MilvusIndex.create(Path(), manifest(MINE), embeddings, overwrite=False)
    assert tokens == [(MINE, "s3cret")]


def test_a_file_or_a_cluster_without_token_is_opened_anywhere(
    tokens: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened("vectors.db")
    monkeypatch.delenv("MILVUS_TOKEN")
    opened(FOREIGN)
    assert tokens == [("vectors.db", ""), (FOREIGN, "")]
