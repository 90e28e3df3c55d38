"""Models that were judged on no labelled pairs: a ready one, and one that learned without labels, both calibrated."""

from pathlib import Path

import pytest
from conftest import refused
from ready import own_cache, sentence_transformer
from stages import write_tiny_cross_model

import qpairs
from qpairs.export.hub import CARD, stage
from qpairs.models.bi_encoder import Checkpoint

READY, UNLABELLED = "ready", "unlabelled"


@pytest.fixture(scope="module")
def calibrated(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of models whose threshold was fitted to pairs, and which know no others."""
    folder = tmp_path_factory.mktemp("calibrated")
    questions = folder / "questions.txt"
    questions.write_text("\n".join(qpairs.load_pairs(pairs_csv).questions), encoding="utf-8")
    run = {"encoder": "static", "loss": "info_nce", "dropout": 0.0, "epochs": 0.1, "max_length": 16}
    learned = qpairs.train(data=str(questions), unlabelled=True, output=str(folder / "learned"), **run)
    with pytest.MonkeyPatch.context() as patch:
        own_cache(patch, folder / "cache")
        ready = qpairs.load(sentence_transformer(folder / "encoder"))
        for name, model in ((READY, ready), (UNLABELLED, learned)):
            qpairs.calibrate(model, pairs_csv).model.save(folder / name)
    return {name: folder / name for name in (READY, UNLABELLED)}


@pytest.fixture(scope="module")
def cross(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross") / "cross"
    write_tiny_cross_model(folder, qpairs.load_pairs(pairs_csv))
    return folder


@pytest.mark.parametrize("name", [READY, UNLABELLED])
@pytest.mark.parametrize("command", ["evaluate", "errors", "report", "export", "combine"])
def test_what_judges_asks_for_labelled_pairs(
    run, calibrated: dict[str, Path], cross: Path, name: str, command: str
) -> None:
    more = {"export": ["--output", "x", "--format", "static"], "combine": [cross, "--output", "x"]}
    why = "does not store which pairs" if name == READY else "learned without labels"
    result = run(command, calibrated[name], *more.get(command, []))
    assert result.code == 2, result
    last = result.err.splitlines()[-1]  # after the bar of a library that was imported before
    assert all(words in last for words in (f"error: {command}: ", why, "--data")), result.err
    assert not Path("x").exists()


@pytest.mark.parametrize("name", [READY, UNLABELLED])
def test_the_next_command_after_explain_names_labelled_pairs(run, calibrated: dict[str, Path], name: str) -> None:
    assert (
        f"qpairs errors {calibrated[name]} --data LABELLED.csv" in run("explain", calibrated[name], "how?", "why?").out
    )


def test_an_export_of_one_is_compared_on_pairs_that_are_named(
    calibrated: dict[str, Path], pairs_csv: Path, tmp_path: Path
) -> None:
    for name, folder in calibrated.items():
        parity = qpairs.export_checkpoint(folder, tmp_path / name, format="static", data=pairs_csv)
        assert parity.n == 600


def test_a_student_of_an_encoder_that_learned_without_labels_is_not_tuned_on_any(
    small_bert: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("\n".join(qpairs.load_pairs(pairs_csv).questions), encoding="utf-8")
    run = {"encoder": str(small_bert), "epochs": 0.1, "max_length": 16, "output": str(tmp_path / "learned")}
    learned = qpairs.train(data=str(questions), unlabelled=True, **run)
    assert isinstance(learned, Checkpoint)
    stages = list[str]()
    qpairs.export_checkpoint(
        *(learned.path, tmp_path / "student"),
        format="static",
        data=pairs_csv,
        max_loss=1.0,
        on_progress=lambda now: stages.append(now.stage),
    )
    assert "distilling" in stages
    assert "tuning" not in stages


def test_a_student_needs_training_pairs(run, small_bert: Path, pairs_csv: Path, monkeypatch, tmp_path: Path) -> None:
    own_cache(monkeypatch, tmp_path / "cache")
    asked = "export", small_bert, "--format", "static", "--data", pairs_csv, "--output", "x"
    result = run(*asked)
    assert result.code == 2, result
    assert "a student learns from the training pairs of a model" in result.err
    assert "choose another --format" in result.err


@pytest.mark.parametrize("name", [READY, UNLABELLED])
def test_it_is_not_pushed_since_a_card_could_not_say_how_good_it_is(
    run, calibrated: dict[str, Path], name: str
) -> None:
    refused(run("push", calibrated[name], "me/x", "--dry-run", "x"), "was judged on no pairs", "qpairs train --encoder")
    assert not Path("x").exists()


def test_the_card_of_two_stages_says_that_one_is_as_it_came(
    calibrated: dict[str, Path], cross: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    qpairs.combine_folders(calibrated[READY], cross, tmp_path / "both", pairs_csv)
    card = (stage(tmp_path / "both", "me/x", tmp_path / "staged") / CARD).read_text(encoding="utf-8")
    assert "It was not trained by qpairs: it is `ENCODER` as it comes." in card
    assert "qpairs combine ENCODER CROSS_ENCODER" in card
