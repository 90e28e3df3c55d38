from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qpairs
from qpairs.config import Config
from qpairs.training import bi_encoder
from qpairs.training.bi_encoder import FINE_TUNING_RATE, SHORT_RUN_RATE, own_rate

STEPS = st.integers(1, 10**6)


@given(STEPS, STEPS)
def test_minilm_learns_slower_the_longer_it_trains_within_the_rates_that_were_tried(one: int, other: int) -> None:
    rates = [own_rate("minilm", Config(), steps) for steps in sorted((one, other))]
    assert SHORT_RUN_RATE >= rates[0] >= rates[1] >= FINE_TUNING_RATE


@given(STEPS)
def test_other_encoders_and_questions_without_labels_have_one_rate(steps: int) -> None:
    assert own_rate("mpnet", Config(), steps) == own_rate("acme/encoder", Config(), steps) == FINE_TUNING_RATE
    assert own_rate("minilm", Config(unlabelled=True, data=("q.csv",)), steps) == FINE_TUNING_RATE
    assert own_rate("minilm", Config(lora=8), steps) == bi_encoder.LORA_RATE


def test_a_run_takes_the_rate_of_all_its_steps_and_of_a_whole_epoch_at_least(
    pairs_csv: Path, small_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(bi_encoder, "own_rate", lambda name, config, steps: asked.append(steps) or 1e-4)
    options = {"data": str(pairs_csv), "encoder": str(small_bert), "batch_size": 8, "max_length": 12, "evaluations": 1}
    for epochs in (0.5, 1.0, 2.0):
        qpairs.train(**options, epochs=epochs, output=str(tmp_path / str(epochs)))
    assert asked == [asked[1], asked[1], 2 * asked[1]]
