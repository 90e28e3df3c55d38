"""Static encoders whose vectors come out of a transformer's vocabulary."""

from pathlib import Path

import numpy as np
import pytest

import qpairs
from qpairs.data.intents import bundled_intents
from qpairs.encoders.build import build_encoder
from qpairs.encoders.distilled import RARITY, principal, rarity
from qpairs.encoders.pretrained import load_encoder
from qpairs.encoders.readers import reader_of
from qpairs.encoders.tokens import embed, token_ids

TEXTS = ["how do i pay", "how do i pay by card", "how do i get my money back", "who are you"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "encoder"
    build_encoder("tiny", texts=[*TEXTS, *bundled_intents()]).save_pretrained(str(folder), create_model_card=False)
    return folder


def distances(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=2)


def test_vectors_are_those_of_single_tokens_weighted_by_rarity(teacher: Path) -> None:
    student = build_encoder("static", vectors=str(teacher), texts=TEXTS)
    tower = load_encoder(teacher)
    tokenizer = reader_of(tower).tokenizer()
    words = ["how", "pay", "card"]
    rows = [tokenizer.token_to_id(word) for word in words]
    assert None not in rows
    alone = embed(tower, token_ids(tower, words))  # a text of one token each
    found = [id for text in TEXTS for id in tokenizer.encode(text, add_special_tokens=False).ids]
    weight = rarity(np.array([found.count(row) / len(found) for row in rows]), RARITY)
    table = student[0].embedding.weight.detach().numpy()
    ratio = distances(table[rows] / weight[:, None]) / (distances(alone) + np.eye(3))
    off = ratio[~np.eye(3, dtype=bool)]
    assert off.std() < 1e-3 * off.mean()  # the components keep distances, up to one factor for all
    assert np.linalg.norm(table, axis=1).mean() == pytest.approx(1, abs=1e-4)


def test_fewer_components_are_the_start_of_more() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    whole = principal(vectors, 8)
    np.testing.assert_allclose(principal(vectors, 3), whole[:, :3], atol=1e-4)
    spread = whole.var(axis=0)
    assert (np.diff(spread) < 0).all()
    np.testing.assert_allclose(spread.sum(), vectors.var(axis=0).sum(), rtol=1e-4)


def test_it_trains_and_is_exported_without_its_teacher(teacher: Path, pairs_csv: Path, tmp_path: Path) -> None:
    qpairs.train(
        data=str(pairs_csv),
        encoder="static",
        vectors=str(teacher),
        epochs=0.5,
        batch_size=16,
        output=str(tmp_path / "x"),
    )
    qpairs.export_checkpoint(tmp_path / "x", tmp_path / "fast", format="static")
    whole, fast = (qpairs.load(tmp_path / name).encode(TEXTS) for name in ("x", "fast"))
    np.testing.assert_allclose(fast, whole, atol=1e-5)


def test_what_is_no_transformer_of_one_tower_is_refused(tmp_path: Path) -> None:
    for name in ("cnn", "tiny+static"):
        build_encoder(name, texts=TEXTS * 2).save_pretrained(str(tmp_path / name))
        with pytest.raises(qpairs.UserError, match="a transformer of one tower"):
            build_encoder("static", vectors=str(tmp_path / name), texts=TEXTS)
    with pytest.raises(qpairs.UserError, match="such as minilm"):
        build_encoder("static", vectors="nowhere", texts=TEXTS)
    with pytest.raises(qpairs.UserError, match="no vectors 'minilm'"):
        build_encoder("lstm", vectors="minilm", texts=TEXTS)
