"""Pairs drawn by strata of the score: their probabilities, their balance, and estimates from them, by simulation."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import a_model, embedded

from qpairs.retrieval.index import Index, build_index, open_index
from qpairs.serving import label_pairs, label_strata
from qpairs.serving.label_pairs import Candidate, pairs_to_label
from qpairs.serving.label_strata import BOUNDS, Frame, draw_pairs
from qpairs.serving.label_texts import Texts

N, CLUSTERS = 160, 40
GOLD = np.arange(N) % CLUSTERS  # questions of one cluster are duplicates


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


RANDOM = np.random.default_rng(5)
VECTORS = unit(RANDOM.standard_normal((CLUSTERS, 16))[GOLD] + 0.7 * RANDOM.standard_normal((N, 16)))
MODEL = a_model(VECTORS)
COSINES = VECTORS @ VECTORS.T
ENDS = np.triu_indices(N, 1)


def number(question: str) -> int:
    return int(question[1:])


def scores(cosines: np.ndarray) -> dict[Texts, float]:
    """The score of each pair, highest first."""
    names = [f"t{i}" for i in range(len(cosines))]
    pairs = {tuple(sorted(pair)): 0.0 for pair in itertools.combinations(names, 2)}
    found = {pair: float(cosines[number(pair[0]), number(pair[1])]) for pair in pairs}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def stratum_of_each(ranked: Mapping[Texts, float], n: int) -> dict[Texts, int]:
    """The stratum of each pair by its rank, by the definition."""
    ends = [round(bound * n) for bound in BOUNDS]
    return {pair: int(np.searchsorted(ends, rank, side="right")) for rank, pair in enumerate(ranked)}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("corpus")
    build_index(embedded(folder, MODEL, range(N)), folder / "idx", kind="exact")
    return open_index(folder / "idx")


def estimates(draws: Sequence[Candidate], threshold: float) -> tuple[float, float]:
    """Duplicates, and all pairs, at or above a threshold, from the first draws; each counts 1 / probability."""
    ends = np.array([(number(draw.question1), number(draw.question2)) for draw in draws]).T
    above = (COSINES[tuple(ends)] >= threshold) / np.array([draw.probability for draw in draws])
    return float((above * (GOLD[ends[0]] == GOLD[ends[1]])).mean()), float(above.mean())


@pytest.mark.parametrize(("sample", "seeds", "threshold"), [(N, 30, 0.6), (60, 50, 0.6)])
def test_weighted_estimates_are_unbiased(
    sample: int, seeds: int, threshold: float, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_pairs, "SAMPLE_SIZE", sample)
    above = COSINES[ENDS] >= threshold
    true = (above & (GOLD[ENDS[0]] == GOLD[ENDS[1]])).sum(), above.sum()
    found = []
    for seed in range(seeds):
        draws = list(pairs_to_label(index, MODEL, seed)["stratified"].values())
        found.append(estimates(draws[: 10 * 10], threshold))  # 10 strata, 10 draws of each
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(seeds)
    assert (abs(mean - true) <= 3.5 * error + 1e-6 * np.array(true)).all(), (mean, error, true)
    assert error[0] < 0.15 * true[0]  # or the test would not say much


def test_the_estimate_without_weights_is_far_off(index: Index) -> None:
    draws = list(pairs_to_label(index, MODEL)["stratified"].values())[:100]
    alike = [draw._replace(probability=2 / (N * (N - 1))) for draw in draws]
    assert estimates(alike, -1)[0] > 5 * (GOLD[ENDS[0]] == GOLD[ENDS[1]]).sum()


def test_probabilities_are_those_of_the_definition_and_sum_to_one(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_strata, "DRAWS", N * N)
    drawn = pairs_to_label(index, MODEL)["stratified"]
    ranked = scores(COSINES)
    expected = stratum_of_each(ranked, N)
    sizes = Counter(expected.values())
    assert list(sizes) == list(range(10))
    assert drawn.keys() == expected.keys()
    assert sum(pair.probability for pair in drawn.values()) == pytest.approx(1)
    wrong = [
        pair for pair, draw in drawn.items() if draw.probability != pytest.approx(1 / (10 * sizes[expected[pair]]))
    ]
    assert len(wrong) <= 2  # equal scores but for rounding at the ends of strata


def test_the_share_of_a_sample_is_part_of_the_probability(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_strata, "DRAWS", N * N)
    monkeypatch.setattr(label_pairs, "SAMPLE_SIZE", 50)
    drawn = pairs_to_label(index, MODEL)["stratified"]
    share = 1 - (110 * 109) / (160 * 159)  # pairs with an end in the sample
    assert len(drawn) == round(share * N * (N - 1) / 2)
    assert sum(pair.probability for pair in drawn.values()) == pytest.approx(share)


def test_questions_with_more_near_ones_than_are_searched_at_first_lose_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    dense = random.standard_normal((1, 16)) + 0.05 * random.standard_normal((80, 16))
    vectors = unit(np.concatenate([dense, random.standard_normal((120, 16))]))
    model = a_model(vectors)
    build_index(embedded(tmp_path, model, range(200)), tmp_path / "idx", kind="exact")
    monkeypatch.setattr(label_strata, "DRAWS", 200 * 200)
    monkeypatch.setattr(label_strata, "HITS", 10)
    drawn = pairs_to_label(open_index(tmp_path / "idx"), model)["stratified"]
    expected = stratum_of_each(scores(vectors @ vectors.T), 200)
    sizes = Counter(expected.values())
    wrong = [
        pair for pair, draw in drawn.items() if draw.probability != pytest.approx(1 / (10 * sizes[expected[pair]]))
    ]
    assert len(drawn) == 200 * 199 / 2
    assert len(wrong) <= 20  # pairs of the dense cluster have nearly equal scores


def test_texts_that_are_one_question_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["t1", "T1", "t2", "t3", "t4 ", "T4"]
    (tmp_path / "q.csv").write_text("q\n" + "\n".join(texts) + "\n")
    build_index(label_corpus(tmp_path), tmp_path / "idx", kind="exact")
    monkeypatch.setattr(label_strata, "DRAWS", 100)
    drawn = pairs_to_label(open_index(tmp_path / "idx"), MODEL)["stratified"]
    assert set(drawn) == set(itertools.combinations(["t1", "t2", "t3", "t4"], 2))
    assert sum(pair.probability for pair in drawn.values()) == pytest.approx(1)


def label_corpus(folder: Path):
    from qpairs.retrieval.embed import embed

    return embed(MODEL, folder / "q.csv", folder / "emb", text_column="q")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_corpora_have_the_pairs_that_they_have(n: int, tmp_path: Path) -> None:
    build_index(embedded(tmp_path, MODEL, range(n)), tmp_path / "idx", kind="exact")
    choices = pairs_to_label(open_index(tmp_path / "idx"), MODEL)
    assert len(choices["stratified"]) == n * (n - 1) / 2
    assert sum(pair.probability for pair in choices["stratified"].values()) == pytest.approx(float(n > 1))


def test_a_random_pair_has_the_probability_of_both_ends(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = np.where(np.eye(N, dtype=bool), -2, COSINES).argmax(axis=1)
    for sample in (N, 30):
        monkeypatch.setattr(label_pairs, "SAMPLE_SIZE", sample)
        pairs = pairs_to_label(index, MODEL)["random"].values()
        for pair in pairs:
            one, other = number(pair.question1), number(pair.question2)
            ends = int(nearest[one] == other) + int(nearest[other] == one)
            assert pair.probability == pytest.approx(ends / N)
        assert (sum(pair.probability for pair in pairs) == pytest.approx(1)) == (sample == N)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 75), seed=st.integers(0, 1000), ties=st.booleans())
def test_at_any_stop_the_strata_are_balanced(n: int, seed: int, ties: bool) -> None:
    names = [f"{i:02}" for i in range(n)]
    random = np.random.default_rng(seed)
    values = random.integers(0, 3, n * n) if ties else random.random(n * n)
    found = dict(zip(itertools.combinations(names, 2), values.tolist(), strict=False))
    drawn = draw_pairs(found, Frame(names, []), seed)
    assert drawn == draw_pairs(dict(reversed(found.items())), Frame(names, []), seed)
    assert list(drawn) == list(draw_pairs(found, Frame(names, []), seed))
    ranked = sorted(found, key=lambda pair: (-found[pair], pair))
    stratum = stratum_of_each(dict.fromkeys(ranked, 0.0), n)
    left = Counter(stratum.values())
    names_of = {name: i for i, name in enumerate(left)}
    counts, sizes = np.zeros(len(left), dtype=int), np.array([min(size, label_strata.DRAWS) for size in left.values()])
    for pair in drawn:
        counts[names_of[stratum[pair]]] += 1
        open_ = counts < sizes
        assert counts.max() - counts[open_].min(initial=counts.max()) <= 1
    assert (counts == sizes).all()


def test_pairs_of_a_stratum_are_drawn_alike() -> None:
    names = [f"{i:02}" for i in range(40)]
    found = {pair: float(-i) for i, pair in enumerate(itertools.combinations(names, 2))}
    firsts = Counter(
        next(pair for pair in draw_pairs(found, Frame(names, []), seed) if found[pair] > -5) for seed in range(200)
    )
    assert len(firsts) == 5  # the first stratum: 40 / 8 pairs
    assert sum((count - 40) ** 2 / 40 for count in firsts.values()) < 18.5  # chi-squared, 4 degrees: 0.1 %


@given(m=st.integers(0, 6), others=st.integers(0, 5))
def test_the_numbers_of_a_frame_are_its_pairs(m: int, others: int) -> None:
    frame = Frame([f"s{i}" for i in range(m)], [f"o{i}" for i in range(others)])
    everything = itertools.combinations([*frame.sample, *frame.others], 2)
    expected = {pair for pair in everything if pair[0] in frame.sample}
    assert {frame.pair(i) for i in range(frame.size)} == expected
    assert frame.size == len(expected)
