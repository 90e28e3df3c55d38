"""The cards of a cross-encoder and of a model of two stages, and what is pushed of them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import sentence_transformers
import yaml
from mocks import MockModel
from stages import two_stages, write_tiny_cross_model

import qpairs
from qpairs.evaluation.combine import combine
from qpairs.evaluation.evaluate import report
from qpairs.evaluation.sources import tested_on as pairs_of
from qpairs.export.hub import stage
from qpairs.export.usage import usage
from qpairs.metrics import SecondLook
from qpairs.models.base import load
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.cross_encoder import write_cross_model
from qpairs.models.two_stages import TwoStages

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"


@pytest.fixture(scope="module")
def folders(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cross-encoder, and a model of two stages, whose band is wide; in a folder that has files of the user's own."""
    folder = tmp_path_factory.mktemp("secret-project")
    pairs, _, _ = pairs_of(checkpoint)
    cross = write_tiny_cross_model(folder / "cross", pairs, checkpoint.config, split=checkpoint.split)
    found = report(cross, pairs, *cross.score_pairs(pairs)).to_dict(brief=True) | {"f1_cross_fitted": 0.5}
    cross = cross.with_verdict(cross.verdict, {"validation": found})
    write_cross_model(cross, folder / "cross")
    joined = combine(checkpoint, cross, pairs)
    look = SecondLook(0.25, -0.5, 40.0, (-9.0, 0.0), (9.0, 0.0))
    replace(joined, look=look).save(folder / "both")
    for name in ("cross", "both", "both/reranker"):
        (folder / name / "layoffs.csv").write_text("mine")
    return {"cross": folder / "cross", "both": folder / "both"}


def code_without_qpairs(card: str) -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", card, flags=re.S) if "import qpairs" not in block)


@pytest.mark.parametrize("kind", ["cross", "both"])
def test_what_is_pushed_loads_here_and_elsewhere_and_holds_nothing_else(
    folders: dict[str, Path], pairs_csv: Path, tmp_path: Path, kind: str
) -> None:
    folder = stage(folders[kind], "acme/dups", tmp_path / "dry")
    model, pushed, pairs = load(folders[kind]), load(folder), qpairs.load_pairs(pairs_csv).subset(range(40))
    assert type(pushed) is type(model)
    assert (pushed.fingerprint, pushed.verdict) == (model.fingerprint, model.verdict)
    assert pushed.score_pairs(pairs)[0] == pytest.approx(model.score_pairs(pairs)[0], abs=1e-4)
    assert not list(folder.rglob("layoffs.csv"))
    if isinstance(pushed, TwoStages):
        assert (folder / "reranker" / "qpairs.json").exists()
        assert not (folder / "reranker" / "README.md").exists()
    told = "".join(path.read_text() for path in folder.rglob("*.*") if path.suffix in (".json", ".md"))
    for secret in ("secret-project", "layoffs", str(folders[kind].parent), str(pairs_csv)):
        assert secret not in told


@pytest.mark.parametrize("kind", ["cross", "both"])
def test_the_example_of_the_card_gives_the_verdict_without_qpairs(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, kind: str
) -> None:
    folder = stage(folders[kind], "acme/dups", tmp_path / "dry")
    load_network = sentence_transformers.CrossEncoder

    def from_folder(name: str) -> Any:
        return load_network(str(folder) if name == "acme/dups" else name, local_files_only=True)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name: str(folder))
    monkeypatch.setattr(sentence_transformers, "CrossEncoder", from_folder)
    code = code_without_qpairs((folder / "README.md").read_text())
    names: dict[str, Any] = {}
    exec(code, names)
    model = load(folder)
    pair = qpairs.pairs_from_texts([names["one"]], [names["other"]], [-1])
    expected = qpairs.predict(model, pair)
    score = names["log_odds"] if kind == "both" else names["logit"]
    assert score == pytest.approx(float(expected.similarity[0]), abs=0.1)  # qpairs may read in bfloat16
    assert names["probability"] == pytest.approx(float(expected.probability[0]), abs=1e-2)
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("duplicates" if expected.duplicate[0] else "not duplicates")
    if isinstance(model, TwoStages):
        assert "logit" in names  # the pair lies in the band


def test_the_card_of_both_tells_both(folders: dict[str, Path], tmp_path: Path) -> None:
    text = (stage(folders["both"], "acme/dups", tmp_path / "dry") / "README.md").read_text()
    model = load(folders["both"])
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert {"cross-encoder", "sentence-similarity"} <= set(yaml.safe_load(head)["tags"])
    low, high = model.band
    for words in (
        f"between {low:.2f} and {high:.2f}",
        f"| its encoder alone, F1 cross-fitted | {model.scores['second_look']['f1_first']:.3f} |",
        f"| its cross-encoder alone, F1 cross-fitted | {model.scores['second_look']['f1_second']:.3f} |",
        "log odds on another forum are distributed differently",
        "qpairs train --data DATA.csv --encoder static",
        "qpairs combine ENCODER CROSS_ENCODER",
    ):
        assert words in body
    assert body.count("Fingerprint of the split") == 1


def test_the_card_of_a_cross_encoder(folders: dict[str, Path], tmp_path: Path) -> None:
    text = (stage(folders["cross"], "acme/dups", tmp_path / "dry") / "README.md").read_text()
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["pipeline_tag"] == "text-ranking"
    for words in (
        "reads both at once",
        "searches nothing",
        "logits on another forum",
        'qpairs.load(snapshot_download("',
    ):
        assert words in body


def test_an_encoder_whose_score_is_no_cosine_has_no_example_by_hand() -> None:
    first = MockModel(type("Four", (), {"dimension": 4})(), one_tower=False)
    said = usage(two_stages(first), "acme/dups")
    assert "its scores need qpairs" in said
    assert said.count("```python") == 1


def test_exports_are_refused_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(qpairs.UserError, match="an export; name the checkpoint"):
        stage(MADE / "one-static", "acme/dups", tmp_path / "dry")
    model = load(folders["both"])
    assert isinstance(model, TwoStages)
    replace(model, first=load(MADE / "one-static")).save(tmp_path / "both")
    with pytest.raises(qpairs.UserError, match="an export; name the checkpoint"):
        stage(tmp_path / "both", "acme/dups", tmp_path / "dry")
    assert not (tmp_path / "dry").exists()
