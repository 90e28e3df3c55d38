"""Folders that commit 48e0593 wrote still load, and answer the same; fixtures/commit_48e0593/make.py made them."""

import json
from pathlib import Path

import numpy as np
import pytest

import qpairs

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
ANSWERS = json.loads((MADE / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["one", "two", "one-static", "one-onnx"])
def test_models_encode_as_they_did(name: str) -> None:
    model, then = qpairs.load(MADE / name), ANSWERS[name]
    assert model.fingerprint == then["fingerprint"]
    np.testing.assert_allclose(model.encode(ANSWERS["asked"]), then["encoded"], atol=2e-6)


@pytest.mark.parametrize("name", ["one", "two"])
def test_checkpoints_judge_as_they_did(name: str) -> None:
    first, second = zip(*ANSWERS["pairs"], strict=True)
    pairs, then = qpairs.pairs_from_texts(first, second, [-1] * len(first)), ANSWERS[name]
    said = qpairs.predict(MADE / name, pairs)
    np.testing.assert_allclose(said.similarity, then["similarity"], atol=2e-6)
    np.testing.assert_allclose(said.probability, then["probability"], atol=2e-5)
    assert said.duplicate.tolist() == then["duplicate"]
    assert 0 < sum(then["duplicate"]) < len(first)


def test_an_index_is_searched_as_it_was() -> None:
    found = qpairs.search(qpairs.open_index(MADE / "index"), qpairs.load(MADE / "one"), ANSWERS["asked"], k=5)
    for answers, then in zip(found, ANSWERS["search"], strict=True):
        assert [answer.hit.id for answer in answers] == [row[0] for row in then]
        assert [answer.duplicate for answer in answers] == [row[3] for row in then]
        np.testing.assert_allclose([answer.hit.similarity for answer in answers], [row[1] for row in then], atol=1e-5)
        np.testing.assert_allclose([answer.probability for answer in answers], [row[2] for row in then], atol=1e-4)


def test_embeddings_are_read_as_they_were() -> None:
    embeddings = qpairs.open_shards(MADE / "embeddings")
    embeddings.verify()
    texts = (MADE / "questions.txt").read_text(encoding="utf-8").splitlines()
    np.testing.assert_allclose(embeddings.matrix(), qpairs.load(MADE / "one").encode(texts), atol=2e-6)
