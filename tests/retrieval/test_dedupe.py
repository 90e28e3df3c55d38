from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from test_index import a_model, clustered, embedded
from test_matches import pairs_of

from qpairs.core.exceptions import UserError
from qpairs.retrieval.dedupe import dedupe, require_one_tower, stored


def known(*texts: str) -> dict[str, np.ndarray]:
    """A vector for each text: equal first words mean equal but for a small angle."""
    random = np.random.default_rng(0)
    themes: dict[str, np.ndarray] = {}
    vectors = {}
    for text in texts:
        theme = themes.setdefault(text.split()[0].lower(), random.standard_normal(64))
        vector = theme + 0.1 * random.standard_normal(64)
        vectors[text] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return vectors


def encoder(vectors: dict[str, np.ndarray], encoded: list[str]):
    def encode(texts: Sequence[str]) -> np.ndarray:
        encoded.extend(texts)
        return np.stack([vectors[text] for text in texts])

    return encode


CORPUS = ["pay how", "c is what", "PAY  how", "c++ is what", "pay when", "boat", "pay how"]


def test_rows_that_read_the_same_are_one_question_and_one_of_each_cluster_is_kept() -> None:
    encoded: list[str] = []
    found = dedupe(CORPUS, encoder(known(*CORPUS), encoded), 0.9)
    assert encoded == ["pay how", "c is what", "c++ is what", "pay when", "boat"]  # C and C++ are two languages
    assert found.question.tolist() == [0, 1, 0, 2, 3, 4, 0]
    assert found.representative.tolist() == [0, 1, 2, 0, 4]
    assert found.kept.tolist() == [0, 1, 3, 5]
    vectors = known(*CORPUS)
    assert found.similarity[3] == pytest.approx(vectors["pay how"] @ vectors["pay when"], abs=1e-6)


def test_what_another_corpus_asks_already_is_left_out() -> None:
    old = ["boat old", "nothing", "boat oar", "boat old"]
    vectors = known(*CORPUS, *old)
    found = dedupe(CORPUS, encoder(vectors, []), 0.9, against=old)
    best = max((0, 2), key=lambda row: vectors["boat"] @ vectors[old[row]])
    assert [(int(found.first[a]), int(b)) for a, b in pairs_of(found.asked)] == [(5, best)]
    assert found.kept.tolist() == [0, 1, 3]
    grown = old + [CORPUS[row] for row in found.kept]
    again = dedupe(CORPUS, encoder(vectors, []), 0.9, against=grown)
    assert again.kept.tolist() == []


def test_only_what_is_not_stored_is_encoded(tmp_path: Path) -> None:
    vectors = clustered(100, 8)
    model = a_model(vectors)
    kept = embedded(tmp_path, model, range(90))
    model.encoder.encoded.clear()
    np.testing.assert_array_equal(stored(kept, model)(["t7", "t95", "t3", "t89"]), vectors[[7, 95, 3, 89]])
    assert model.encoder.encoded == ["t95"]
    with pytest.raises(UserError, match="c" * 16):
        stored(embedded(tmp_path / "c", a_model(vectors, "c" * 16), range(3)), model)


def test_two_towers_have_no_duplicates_within_a_corpus() -> None:
    vectors = clustered(10)
    require_one_tower(a_model(vectors))
    for model in (a_model(vectors, towers=2), a_model(vectors, symmetric=False)):
        with pytest.raises(UserError, match="a single encoder"):
            require_one_tower(model)
