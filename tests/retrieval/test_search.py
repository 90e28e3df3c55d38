from pathlib import Path

import numpy as np
import pytest
from test_index import a_model, clustered, embedded

from qpairs.core.exceptions import UserError
from qpairs.retrieval.index import build_index, open_index
from qpairs.retrieval.search import answers_table, search


def test_search_gives_probability_and_verdict(tmp_path: Path) -> None:
    vectors = clustered(200)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(100)), tmp_path / "idx")
    opened = open_index(tmp_path / "idx")
    (answers,) = search(opened, model, ["t150"], 5, 0.9)
    cosines = np.sort(vectors[:100] @ vectors[150])[:-6:-1]
    assert [a.hit.similarity for a in answers] == pytest.approx(cosines.tolist(), abs=1e-6)
    assert [a.probability for a in answers] == pytest.approx(model.verdict.pair.probability(cosines).tolist(), abs=1e-5)
    assert [a.duplicate for a in answers] == (cosines >= 0.9).tolist()
    assert [a.duplicate for a in search(opened, model, ["t150"], 5)[0]] == (
        cosines >= model.verdict.pair.threshold
    ).tolist()
    with pytest.raises(UserError, match="d" * 16):
        search(opened, a_model(vectors, "d" * 16), ["t1"])


def test_the_other_tower_searches(tmp_path: Path) -> None:
    vectors = clustered(50)
    one_way = a_model(vectors, towers=2, symmetric=False)
    for side in ("left", "right"):
        build_index(embedded(tmp_path / side, one_way, range(50), side), tmp_path / side / "idx")
        (answers,) = search(open_index(tmp_path / side / "idx"), one_way, ["t7"], 50)
        assert answers[-1].hit.text == "t7"  # the right tower sees everything upside down
        assert answers[-1].hit.similarity == pytest.approx(-1, abs=1e-6)
    with pytest.raises(UserError, match="--no-symmetric"):
        search(open_index(tmp_path / "left" / "idx"), a_model(vectors, towers=2), ["t7"])


def test_a_table_has_a_row_for_each_hit(tmp_path: Path) -> None:
    vectors = clustered(50)
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(50)), tmp_path / "idx")
    answers = search(open_index(tmp_path / "idx"), model, ["t7", "t9"], 3)
    table = answers_table(["t7", "t9"], answers)
    assert table["question"].tolist() == ["t7"] * 3 + ["t9"] * 3
    assert table["rank"].tolist() == [1, 2, 3] * 2
    assert table["text"].tolist()[::3] == ["t7", "t9"]
    assert table["duplicate"].tolist() == (table["similarity"] >= model.verdict.pair.threshold).astype(int).tolist()
