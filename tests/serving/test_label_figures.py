"""The precision shown while labelling, in small simulated corpora where strata run out of pairs."""

import itertools

import numpy as np
import pytest

from qpairs.serving.label_figures import Figure, precision_figures
from qpairs.serving.label_file import Row
from qpairs.serving.label_strata import Frame, draw_pairs

QUESTIONS, THRESHOLD = 60, 0.5
PAIRS = list(itertools.combinations([f"{i:02}" for i in range(QUESTIONS)], 2))
RANDOM = np.random.default_rng(0)
DUPLICATE = dict(zip(PAIRS, RANDOM.permutation(len(PAIRS)) < 40, strict=True))
SCORES = {pair: float(RANDOM.normal(0.8 if same else 0.3, 0.12)) for pair, same in DUPLICATE.items()}
CALLED = {pair for pair, score in SCORES.items() if score >= THRESHOLD}
PRECISION = np.mean([DUPLICATE[pair] for pair in CALLED])


def shown(labels: int, seed: int) -> Figure:
    """The last figure after so many labels."""
    drawn = list(draw_pairs(SCORES, Frame(sorted({*sum(PAIRS, ())}), []), seed).items())[:labels]
    rows = [Row(*pair, int(DUPLICATE[pair]), "stratified", probability) for pair, probability in drawn]
    return precision_figures(rows, np.array([pair in CALLED for pair, _ in drawn]))[0][-1]


@pytest.mark.parametrize("labels", [60, 120, 250])
def test_the_precision_shown_is_unbiased_and_covered_when_strata_run_out(labels: int) -> None:
    figures = [shown(labels, seed) for seed in range(40)]
    values = np.array([figure.value for figure in figures])
    assert values.mean() == pytest.approx(PRECISION, abs=0.005 + 3 * values.std() / np.sqrt(len(values)))
    assert sum(figure.low <= PRECISION <= figure.high for figure in figures) >= 36
    assert np.mean([figure.high - figure.low for figure in figures]) < 0.4


def test_the_precision_is_known_for_sure_when_all_pairs_are_labelled() -> None:
    figure = shown(len(PAIRS), 0)
    assert (figure.value, figure.low, figure.high) == pytest.approx((PRECISION,) * 3, abs=1e-6)
