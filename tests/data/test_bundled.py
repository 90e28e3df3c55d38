"""The bundled pairs: their size, their make, and that words alone don't decide."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from qpairs import load_pairs, metrics, split_pairs
from qpairs.data.identity import canonical
from qpairs.data.pairs import Pairs
from qpairs.data.splits import contradictions
from qpairs.evaluation.baselines import tfidf_scores

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return load_pairs("sample")


@pytest.fixture(scope="module")
def domains() -> dict[str, list[dict]]:
    return {f.stem: tomllib.loads(f.read_text())["family"] for f in sorted((DATA / "questions").glob("*.toml"))}


def test_there_are_enough_questions_intents_and_domains(domains: dict[str, list[dict]]) -> None:
    intents = [texts for families in domains.values() for family in families for texts in family["intents"].values()]
    questions = [canonical(q) for texts in intents for q in texts]
    assert len(domains) >= 12
    assert len(intents) >= 600
    assert len(set(questions)) >= 3_000
    assert len(questions) == len(set(questions)), "a question stands in two intents, or twice in one"
    assert min(len(family["intents"]) for families in domains.values() for family in families) >= 3


def test_the_files_are_made_by_the_script() -> None:
    before = [(DATA / name).read_bytes() for name in ("pairs.csv", "intents.csv")]
    subprocess.run([sys.executable, str(DATA / "make_pairs.py")], check=True, capture_output=True)
    assert [(DATA / name).read_bytes() for name in ("pairs.csv", "intents.csv")] == before


def test_ratio_and_labels(pairs: Pairs) -> None:
    assert pairs.duplicate_ratio == pytest.approx(0.37, abs=0.01)
    assert len(contradictions(pairs)) == 0
    assert not pairs.skipped


def test_words_alone_do_not_decide(pairs: Pairs) -> None:
    scores = tfidf_scores(pairs)
    assert metrics.confusion(scores, pairs.labels, metrics.best_threshold(scores, pairs.labels)).f1 < 0.80


def test_it_splits_at_the_ratio_of_the_whole(pairs: Pairs) -> None:
    cut = split_pairs(pairs)
    assert cut.dropped == 0
    for part, fraction in ((cut.train, 0.8), (cut.validation, 0.1), (cut.test, 0.1)):
        assert len(part) / len(pairs) == pytest.approx(fraction, abs=0.02)
        assert part.duplicate_ratio == pytest.approx(pairs.duplicate_ratio, abs=0.02)
    assert np.intersect1d(cut.train.questions, cut.test.questions).size == 0
