import numpy as np
import pytest

import qpairs
from qpairs.evaluation import baselines as module
from qpairs.evaluation.baselines import baselines, tfidf_scores, tfidf_threshold


def test_tfidf_is_one_for_equal_texts_and_zero_for_strangers() -> None:
    pairs = qpairs.pairs_from_texts(["reset my password", "aaa"], ["Reset my password", "zzz"], [1, 0])
    np.testing.assert_allclose(tfidf_scores(pairs), [1, 0], atol=1e-6)
    assert tfidf_scores(qpairs.pairs_from_texts([""], [""], [1])).tolist() == [0]


def test_without_scikit_learn_tfidf_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = qpairs.pairs_from_texts(["reset my password", "aaa"], ["Reset my password", "zzz"], [1, 0])
    threshold = tfidf_threshold(pairs)
    assert threshold == pytest.approx(0.5)
    assert baselines(pairs, threshold)["TF-IDF"] == {"f1": 1.0, "average_precision": 1.0}
    assert list(baselines(pairs, None)) == ["all duplicate"]
    monkeypatch.setattr(module, "_sklearn_installed", lambda: False)
    assert tfidf_threshold(pairs) is None
    assert list(baselines(pairs, threshold)) == ["all duplicate"]
