"""What the terminal tells before and after work: dry runs, the resolved options, completion, and the last sentence."""

import dataclasses
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, refused, write_csv
from mocks import MockModel

import qpairs
from qpairs.commands import conclusions
from qpairs.commands.conclusions import Conclusion
from qpairs.commands.reading import NamedPairs
from qpairs.config import config_from
from qpairs.core.shell import shown_command
from qpairs.evaluation.calibrate import calibrate
from qpairs.experiments.compare import plan_comparison
from qpairs.training.estimate import estimate

FAST = ["--encoder", "static", "--epochs", "2", "--batch-size", "16"]
START = "import sys; sys.argv = ['qpairs']\nfrom qpairs.commands import main\nmain()"


def test_a_dry_run_counts_the_steps_of_the_run_and_writes_nothing(run, pairs_csv: Path, tmp_path: Path) -> None:
    result = run("train", "--data", pairs_csv, *FAST, "--dry-run")
    assert result.code == 0, result.err
    assert list(tmp_path.iterdir()) == []
    found = estimate(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output="x")
    assert f"{found.steps:,} steps of 16 pairs, 2 passes" in " ".join(result.out.split())
    model = qpairs.train(data=str(pairs_csv), encoder="static", epochs=2, batch_size=16, output="x", patience=0)
    assert found.steps == max(row["step"] for row in model.history)
    assert found.evaluations == sum("eval_f1" in row for row in model.history)
    assert found.split["fingerprint"] == model.split["fingerprint"]
    assert found.parameters == sum(p.numel() for p in model.encoder.parameters())
    assert 0 < found.step_seconds < 5
    assert found.seconds >= found.steps * found.step_seconds


def test_an_estimate_ends_with_the_budget_and_names_what_is_not_in_it(pairs_csv: Path) -> None:
    options = {"data": str(pairs_csv), "encoder": "static", "batch_size": 16, "output": "nowhere"}
    assert estimate(**options, epochs=1e6, budget_minutes=0.5).seconds == 30
    assert estimate(**options, reranker="tiny").without == ("the reranker",)
    taught = estimate(**options, teacher="itself", neighbours=2, second_epochs=3, loss="logistic")
    near = 2 * taught.split["questions"]["train"]
    assert taught.without == (
        "the teachers",
        f"their pairs of nearest questions, at most {near:,} in each pass",
        "passes towards their probabilities: 3",
    )
    cross = estimate(data=str(pairs_csv), model="cross-encoder", encoder="tiny", batch_size=64, output="nowhere")
    assert cross.config.epochs == 4
    assert cross.steps == 4 * -(-cross.split["sizes"]["train"] // 64)


def test_a_dry_run_refuses_what_the_run_would_refuse(run, pairs_csv: Path, checkpoint) -> None:
    refused(run("train", "--data", pairs_csv, "--output", checkpoint.path, "--dry-run"), "not empty")
    refused(run("train", "--data", pairs_csv, "--loss", "contrastiv", "--dry-run"), "did you mean 'contrastive'")


def test_a_dry_run_of_a_comparison_lists_cells_and_hours(run, pairs_csv: Path, tmp_path: Path) -> None:
    options = ["--data", pairs_csv, "--encoders", "static", "--losses", "contrastive,focal", "--seeds", "2"]
    result = run("compare", *options, "--budget-minutes", "3", "--dry-run")
    assert result.code == 0, result.err
    assert "4 cells" in result.out
    assert "12 min" in result.out
    assert list(tmp_path.iterdir()) == []
    plan = plan_comparison(data=str(pairs_csv), encoders="static", losses="all", seeds=1, budget_minutes=0, epochs=1)
    assert len(plan.cells) == len(qpairs.LOSSES)
    assert 0 < plan.hours < 1


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--encoder", "static", "--dims", "64,32", "--loss", "info_nce(temperature=0.1)", "--output", "runs/x"],
        ["--unlabelled", "--data", "questions.txt"],
        ["--model", "cross-encoder"],
    ],
)
def test_the_options_that_are_shown_give_the_same_run(run, given: list[str], tmp_path: Path) -> None:
    shown = run("train", *given, "--show-config")
    assert shown.code == 0, shown.err
    options = tomllib.loads(shown.out)
    Path("run.toml").write_text(shown.out)
    assert run("train", "--config", "run.toml", "--show-config").out == shown.out
    assert ("epochs" in options) == ("cross-encoder" not in given)
    assert ("output" in options) == ("--output" in given)
    assert config_from(options).loss == ("info_nce" if "--unlabelled" in given else options["loss"])


@pytest.mark.parametrize(
    ("words", "place", "expected"), [("qpairs ev", 1, "evaluate"), ("qpairs train --enc", 2, "--encoder")]
)
def test_a_shell_completes_commands_and_options(words: str, place: int, expected: str) -> None:
    asked = {"_QPAIRS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run([sys.executable, "-c", START], env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == [expected]


def test_the_three_commands_that_judge_take_the_same_pairs_where_none_are_named(run, checkpoint) -> None:
    source = "the part kept for the test"
    for command in ("evaluate", "errors", "report"):
        result = run(command, checkpoint.path)
        assert result.code == 0, result.err
        assert source in " ".join(result.out.split())
    n = checkpoint.split["sizes"]["test"]
    assert f"of {n:,} decisions" in " ".join(run("errors", checkpoint.path, "--overwrite").out.split())


def test_one_mistake_is_one_mistake(run, tmp_path: Path, checkpoint) -> None:
    texts = ("How do I pay?", "Where is my order?", "Who are you?")
    rows = [(text, text, int(text != "Who are you?")) for text in texts]
    result = run("errors", checkpoint.path, "--data", write_csv(tmp_path / "few.csv", rows))
    assert result.code == 0, result.err
    told = " ".join(result.out.split())
    assert "1 of 3 decisions is wrong" in told
    assert "1 pair is called a duplicate wrongly, 0 duplicates are missed" in told


def test_a_finished_run_is_not_resumed_and_says_so(run, checkpoint, pairs_csv: Path) -> None:
    refused(run("train", "--resume", "--output", checkpoint.path), "finished", "there is nothing to resume")


def test_predict_says_what_its_probability_is_true_of(run, checkpoint) -> None:
    told = run("predict", checkpoint.path, "How do I pay?", "How can I pay?").out
    assert "of pairs like those of validation" in told


def test_scores_that_do_not_rise_with_the_labels_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Backwards:
        dimension = 2

        def encode(self, texts, side="left"):
            angles = [float(text.split()[-1]) for text in texts]
            return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=np.float32)

    rows = [(f"a {n} 0.0", f"b {n} {1.2 if n % 2 else 0.1 + n / 5000}", n % 2) for n in range(800)]
    fit = calibrate(MockModel(Backwards()), rows)
    assert fit.model.verdict.pair.calibration.slope == 0
    assert "duplicates do not score higher" in caplog.text
    assert "0.50" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"collapsed": True}, "scores all pairs alike"),
        ({"trivial": "no better"}, "no better than a baseline"),
        ({"trivial": "no better"}, "qpairs data 'a b.csv' --columns q,r,s"),
        ({"shift": {"differs": True}}, "qpairs calibrate my-model --data 'a b.csv' --columns q,r,s --label-values y=1"),
        ({}, "qpairs errors my-model --data 'a b.csv' --columns q,r,s --labels y=1"),
        ({}, "Of 100 duplicates among pairs like these it finds about 80"),
    ],
)
def test_the_last_sentence_fits_the_figures(changes: dict, words: str) -> None:
    scores = {"collapsed": False, "trivial": "", "shift": {"differs": False}, "recall": 0.8, "precision": 0.6}
    named = NamedPairs(["a b.csv"], columns="q,r,s", labels="y=1")
    assert words in told(conclusions.after_evaluate(scores | changes, "my-model", named, NamedPairs(["other.csv"])))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trivial": "no better"}, "qpairs data other.csv --columns x,y"),
        ({"shift": {"differs": True}}, "qpairs calibrate my-model --data LABELLED.csv --output here"),
        ({}, "qpairs errors my-model"),
    ],
)
def test_without_named_pairs_a_command_names_others_or_none(changes: dict, words: str) -> None:
    scores = {"collapsed": False, "trivial": "", "shift": {"differs": False}, "recall": 0.8, "precision": 0.6}
    trained_on = NamedPairs(["other.csv"], columns="x,y")
    shown = told(conclusions.after_evaluate(scores | changes, "my-model", NamedPairs(), trained_on))
    assert shown.splitlines()[-1] == words


IDX, MODEL, PAIRS = Path("my idx"), Path("runs/m"), NamedPairs(["a.csv"], columns="q,r,s", skip_bad_rows=True)


def told(conclusion: Conclusion) -> str:
    """The sentence, and each command on a line of its own."""
    return "\n".join([conclusion.sentence, *(shown_command("qpairs", *words) for words in conclusion.commands)])


@pytest.mark.parametrize(
    ("conclusion", "words"),
    [
        (conclusions.after_embed(MODEL, Path("a/emb")), "qpairs index a/emb --output a/idx"),
        (conclusions.after_embed(MODEL, Path("a/emb")), f"qpairs dedupe {MODEL} a/emb --output a/dedup"),
        (
            conclusions.after_index(0, None, IDX),
            "add embeddings:\nqpairs index 'my idx' --add EMBEDDINGS",
        ),
        (conclusions.after_index(9, 0.91, IDX), "misses about 9 of the 100 nearest questions"),
        (conclusions.after_index(9, None, IDX), "To search it:\nqpairs search 'my idx'"),
        (conclusions.after_questions(1, 0, IDX, MODEL), "It has no duplicate in the index"),
        (conclusions.after_questions(8, 0, IDX, MODEL), "None of the 8 questions has"),
        (conclusions.after_questions(1, 1, IDX, MODEL), "is in the index already"),
        (conclusions.after_questions(8, 3, IDX, MODEL), "3 of 8 questions are in the index already, and 5 are new"),
        (conclusions.after_export(0.8, 0.7, "static", "x"), "0.100 F1 worse on these pairs"),
        (conclusions.after_export(0.8, 0.7, "onnx", "x"), "try --format onnx-int8"),
        (conclusions.after_export(0.8, 0.81, "onnx", "x"), "can replace it:\nqpairs serve x"),
        (conclusions.after_export(0.8, 0.8, "onnx", "x", checkpoint="run", speed=1.2), "replace it:\nqpairs serve x"),
        (conclusions.after_export(0.8, 0.8, "onnx", "x", checkpoint="run", speed=0.9), "missing:\nqpairs serve run"),
        (conclusions.after_export(0.8, 0.81, "onnx", "x", searches=False), "qpairs predict x PAIRS.csv --output"),
        (conclusions.after_learning_curve(0.03, -0.01, 900, ["--data", "a"]), "qpairs compare --data a"),
        (conclusions.after_learning_curve(0.004, 0.001, 900, []), "add little"),
        (conclusions.after_learning_curve(0.03, 0.01, 9000, []), "up to about 9,000 pairs"),
        (conclusions.after_dedupe(0, None, False, MODEL, "d"), "No two questions are called duplicates"),
        (conclusions.after_dedupe(0, None, False, MODEL, "d", folder=True), "a lower --threshold may find some"),
        (conclusions.after_dedupe(7, None, False, MODEL, "d"), "the pairs are right is not known: label some"),
        (conclusions.after_dedupe(7, None, True, MODEL, "d"), "are right is hardly known: label more"),
        (conclusions.after_dedupe(7, (0.6, 0.31), False, MODEL, "d"), "about 60 are by the scores alone, and of 100"),
        (conclusions.after_dedupe(7, (0.97, 0.31), True, MODEL, "my d"), "qpairs serve runs/m --clusters 'my d'"),
        (conclusions.after_trade_offs(None, []), "No threshold stands out"),
        (conclusions.after_trade_offs(0.87654, ["dedupe", MODEL, "q"]), "The threshold will be 0.877"),
        (conclusions.after_trade_offs(0.87654, ["dedupe", MODEL, "q"]), "qpairs dedupe runs/m q --output dedup"),
        (conclusions.after_serve(False, None, MODEL), "name an index with --index"),
        (conclusions.after_serve(False, None, MODEL, takes_files=True), "in a file of questions"),
        (conclusions.after_serve(True, None, MODEL), "with --labels FILE"),
        (conclusions.after_serve(True, None, MODEL, session=True), "to search, and to find the duplicates"),
        (conclusions.after_serve(True, None, MODEL, session=True, read_only=True), "to search. Ctrl-C"),
        (
            conclusions.after_data(9, 90, PAIRS),
            "qpairs data a.csv --columns q,r,s --skip-bad-rows --contradictions mend",
        ),
        (conclusions.after_data(0, 90, PAIRS, alone=True), "--columns q,r,s --skip-bad-rows --validation LABELLED.csv"),
        (conclusions.after_data(0, 90, PAIRS), "qpairs train --data a.csv --columns q,r,s --skip-bad-rows"),
        (conclusions.after_compare("gap", 1, ["--loss", "gap"]), "Train it for longer:\nqpairs train --loss gap"),
        (conclusions.after_compare("gap", 0, ["--loss", "gap"], others=False), "gap is the only row: name others"),
        (conclusions.after_calibrate("y", PAIRS, []), "qpairs evaluate y --data OTHERS.csv --columns q,r,s --skip-bad"),
        (conclusions.after_calibrate("y", NamedPairs(), ["q.csv"]), "corpus:\nqpairs dedupe y q.csv --dry-run"),
        (conclusions.after_questions(1, 0, IDX, MODEL, reranker=False), "--labels labels.csv --no-reranker"),
        (conclusions.after_serve(True, "l.csv", MODEL), "qpairs calibrate runs/m --corpus QUESTIONS --labels l.csv"),
    ],
)
def test_every_result_ends_with_what_it_means(conclusion: Conclusion, words: str) -> None:
    assert words in told(conclusion) and "\n" not in conclusion.sentence
    assert conclusion.sentence.endswith(":" if conclusion.commands else ".")


def test_the_commands_of_a_corpus_end_with_what_their_result_means(run, checkpoint, tmp_path: Path) -> None:
    questions = [f"How do I pay with card number {n}?" for n in range(40)] + ["Where is my parcel?", "Who are you?"]
    (tmp_path / "q.txt").write_text("\n".join(questions))
    asked = ("Where is my parcel?", "Why is grass green and the sky blue?")
    dedupe = ("dedupe", checkpoint.path, "q.txt")
    commands = {
        "Next, index the vectors to search them": ("embed", checkpoint.path, "q.txt", "--output", "emb"),
        "To search it:": ("index", "emb", "--output", "idx"),
        "The question is in the index already": ("search", "idx", asked[0]),
        "of 2 questions are in the index already": ("search", "idx", *asked),
        "unless --threshold or --precision sets another": (*dedupe, "--dry-run"),
        "How many of the pairs are right is not known": (*dedupe, "--output", "d", "--threshold", "1"),
    }
    for words, command in commands.items():
        done = run(*command)
        assert done.code == 0, done.err
        *_, last = (line for line in done.out.strip().splitlines() if not line.startswith("qpairs "))
        assert words in last, done.out


def test_tensorboard_is_told_where(run, checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(checkpoint.config, report_to="tensorboard")
    monkeypatch.setattr("qpairs.training.fit.train", lambda **options: dataclasses.replace(checkpoint, config=config))
    result: Result = run("train")
    assert result.code == 0, result.err
    folder = Path(config.output).parent / "tensorboard"
    assert f"tensorboard --logdir {folder}" in result.out
