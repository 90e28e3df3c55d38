"""What commands print to be run next: real commands with odd names and columns, whose next commands parse and run."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
from pathlib import Path

import pandas
import pytest
import shown
from conftest import Result
from llm_stand_in import serving
from stages import write_tiny_cross_model

import qpairs
from qpairs.core.shell import option_words, shown_command
from qpairs.data.sources import load_pairs
from qpairs.models.bi_encoder import Checkpoint
from qpairs.models.verdict import Reference
from qpairs.retrieval.corpus import SUMMARY

MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
FOLDER = "a  [b] c"  # two spaces, brackets
MODEL, JUDGED = f"{FOLDER}/m [/x]", f"{FOLDER}/on  these"  # the latter was trained on the pairs
PAIRS, QUESTIONS = f"{FOLDER}/p's.csv", f"{FOLDER}/q (1).csv"
HOSTILE = "Who [/b] is :smile: \x1b[2J $(there)?"
COLUMNS = "first  q,other [q],same"
READ = ("--columns", COLUMNS, "--skip-bad-rows")
LABELS = ("--labels", "yes=1,no=0")
NAMED = ("--data", PAIRS, *READ, *LABELS)
TEXTS = ("--text-column", "the [q]  text", "--skip-bad-rows")
QUICK = ("--encoder", "static", "--epochs", "0.5", "--batch-size", "16")


@pytest.fixture(scope="module")
def world(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pairs with labels and columns of their own, and questions, one row of each of which is broken."""
    place = tmp_path_factory.mktemp("world")
    (place / FOLDER).mkdir()
    shutil.copytree(checkpoint.path, place / MODEL)
    shutil.copytree(MADE / "one", place / JUDGED)
    pairs = load_pairs(MADE / "pairs.csv")
    rows = [(*pairs.texts(row), ("no", "yes")[pairs.labels[row]]) for row in range(len(pairs))]
    with (place / PAIRS).open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS.split(","), *rows, (HOSTILE, "Who?", "no"), ("", "Why?", "no")])
    texts = [*dict.fromkeys(pairs.questions)][:40]
    with (place / QUESTIONS).open("w", newline="") as file:
        named = [(f"[{number}]", text) for number, text in enumerate([*texts, HOSTILE])]
        csv.writer(file).writerows([("id", "the [q]  text"), *named, ("x", "")])
    return place


@pytest.fixture
def told(run, world: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in the world; returns the words of the commands that it shows, all of which parse."""

    def call(*words: object, code: int = 0) -> list[list[str]]:
        monkeypatch.chdir(world)
        done: Result = run(*words)
        assert done.code == code, done
        assert not set(done.out) & {"\x1b", "\x07", "\r"}
        shown.check_mentions(done.out)
        shown.check_mentions(done.err)
        found = shown.shown_in(done.out)
        for command in found:
            shown.parse(command)
        return found

    return call


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_data_is_trained_on_as_it_was_read(told, world: Path) -> None:
    (train,) = told("data", PAIRS, *READ, *LABELS)
    assert train == ["train", "--data", PAIRS, "--columns", COLUMNS, "--labels", "yes=1,no=0", "--skip-bad-rows"]
    ((predict, model, *_),) = told(*train, *QUICK, "--output", f"{FOLDER}/trained")
    assert (predict, model) == ("predict", f"{FOLDER}/trained")


def test_pairs_that_contradict_are_written_as_they_were_read(told, world: Path) -> None:
    rows = [("first  q", "other [q]", "same"), ("a b", "c d", "yes"), ("c d", "e f", "yes"), ("a b", "e f", "no")]
    with (world / FOLDER / "few.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*rows, ("", "x", "no")])
    (data,) = told("data", f"{FOLDER}/few.csv", *READ, *LABELS)
    assert data[0] == "data" and option(data, "--contradictions") == "mend.csv"
    told(*data)
    assert len(pandas.read_csv(world / "mend.csv")) == 1


def test_a_model_is_judged_on_the_same_pairs(told, world: Path) -> None:
    ((errors, model, *words),) = told("evaluate", JUDGED, *NAMED)
    assert (errors, model) == ("errors", JUDGED)
    assert words == ["--data", PAIRS, "--columns", COLUMNS, "--labels", "yes=1,no=0", "--skip-bad-rows"]
    told("errors", model, *words, "--output", f"{FOLDER}/e")
    assert told("evaluate", MODEL, *NAMED) == [["data", PAIRS, *words[2:]]]  # it is of no use for these pairs
    told("report", model, *words, "--output", f"{FOLDER}/r [b].html")


def test_a_threshold_that_does_not_fit_is_fitted_to_the_same_pairs(told, world: Path) -> None:
    model = qpairs.load(world / JUDGED)
    verdict = dataclasses.replace(model.verdict, reference=Reference([0.01] * 101, 500))
    model.with_verdict(verdict, model.scores).save(world / "moved")
    (calibrate,) = told("evaluate", "moved", *NAMED)
    assert calibrate[:2] == ["calibrate", "moved"] and option(calibrate, "--label-values") == "yes=1,no=0"
    (evaluate,) = told(*calibrate)
    assert evaluate[:4] == ["evaluate", "here", "--data", "OTHERS.csv"]
    assert (option(evaluate, "--columns"), option(evaluate, "--labels")) == (COLUMNS, "yes=1,no=0")


def test_a_prediction_says_how_to_fit_its_probability(told) -> None:
    for words in (["How?", "Why?"], [PAIRS, "--columns", COLUMNS, "--output", f"{FOLDER}/scored.csv"]):
        ((calibrate, model, *_),) = told("predict", MODEL, *words)
        assert (calibrate, model) == ("calibrate", MODEL)
    ((errors, model, *_),) = told("explain", MODEL, HOSTILE, "Who [x] is there?")
    assert (errors, model) == ("errors", MODEL)


def test_a_corpus_is_searched_and_deduplicated_as_it_was_read(told, world: Path) -> None:
    ids = "--id-column", "id"
    index, dedupe = told("embed", MODEL, QUESTIONS, *TEXTS, *ids, "--output", f"{FOLDER}/emb")
    (search,) = told(*index)
    (serve,) = told(*search)
    assert serve == ["serve", str(world / MODEL), "--index", f"{FOLDER}/idx", "--labels", "labels.csv"]
    ((serve, model, *words),) = told(*dedupe, "--threshold", "0.9")
    assert (serve, model, words) == ("serve", MODEL, ["--clusters", f"{FOLDER}/dedup"])
    asked = ["--threshold", "0.375", "--linkage", "single", "--recall", "0.9", "--against", f"{FOLDER}/old [1].csv"]
    pandas.read_csv(world / QUESTIONS).head(3).to_csv(world / FOLDER / "old [1].csv", index=False)
    known = ["--embeddings", f"{FOLDER}/emb"]
    (again,) = told("dedupe", MODEL, QUESTIONS, *TEXTS, *ids, *asked, *known, "--dry-run")
    options = shown.parse(again).params
    assert (options["threshold"], options["linkage"], options["recall"]) == (0.375, "single", 0.9)
    assert (options["text_column"], options["id_column"], options["skip_bad_rows"]) == (TEXTS[1], "id", True)
    told(*again)
    summary = json.loads((world / "dedup" / SUMMARY).read_text())
    assert summary["against"] == asked[-1]


def test_a_verdict_for_a_corpus_is_tried_on_the_corpus(told, world: Path) -> None:
    (dedupe,) = told("calibrate", MODEL, "--corpus", QUESTIONS, *TEXTS, "--output", f"{FOLDER}/fitted")
    assert dedupe[:3] == ["dedupe", f"{FOLDER}/fitted", QUESTIONS]
    told(*dedupe)
    pairs = *NAMED[:-2], "--label-values", LABELS[1]
    both = told("calibrate", MODEL, *pairs, "--corpus", QUESTIONS, *TEXTS[:2], "--output", "both")
    assert [words[0] for words in both] == ["evaluate", "dedupe"]


def test_a_session_shows_the_same_by_plain_commands(told, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\nn\nq\n"))
    found = told("start", QUESTIONS, "--model", MODEL, *TEXTS, "--output", f"{FOLDER}/s")
    trial, again, *plain = found
    assert (trial[0], trial[-1], again[0]) == ("dedupe", "--dry-run", "start")
    assert [words[0] for words in plain] == ["search", "embed", "index", "serve", "calibrate", "dedupe"]
    for words in found:
        if words[0] != "serve":
            told(*words)


def test_a_service_says_how_its_labels_are_used(told, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpairs.serving.limits.run_server", lambda *_: None)
    told("embed", MODEL, QUESTIONS, *TEXTS, "--output", f"{FOLDER}/emb-served")
    told("index", f"{FOLDER}/emb-served", "--output", f"{FOLDER}/served")
    labels = f"{FOLDER}/l [a].csv"
    (calibrate,) = told("serve", MODEL, "--index", f"{FOLDER}/served", "--labels", labels, "--port", "0")
    assert calibrate[:2] == ["calibrate", MODEL] and option(calibrate, "--labels") == labels
    assert told("serve", MODEL, "--port", "0") == []
    asked = world / "asked.csv"
    asked.write_text("\n".join(["question", *pandas.read_csv(world / QUESTIONS)[TEXTS[1]].dropna().map('"{}"'.format)]))
    assert told("serve", MODEL, "--questions", asked, "--port", "0") == []


def test_labels_of_a_language_model_lead_on(told) -> None:
    told("embed", MODEL, QUESTIONS, *TEXTS, "--output", f"{FOLDER}/emb-labelled")
    told("index", f"{FOLDER}/emb-labelled", "--output", f"{FOLDER}/labelled")
    files = [f"{FOLDER}/{name} [b].csv" for name in ("one", "two")]
    with serving(lambda one, other: json.dumps({"answer": "yes" if len(one) > len(other) else "no"})) as service:
        ask = "label", f"{FOLDER}/labelled", "--llm", service.url, "--model", "[m]", "--budget", 9
        for file in files:
            told(*ask, "--labels", file, "--annotator", Path(file).stem)
    assert told("label", "agreement", *files) == []


def test_an_export_is_served_where_it_has_vectors(told, world: Path) -> None:
    plain = option_words({"--data": "pairs.csv"})
    shutil.copy(MADE / "pairs.csv", world / "pairs.csv")
    assert told("export", MODEL, "--format", "static", "--max-loss", 1, *plain, "--output", f"{FOLDER}/x") == [
        ["serve", f"{FOLDER}/x"]
    ]
    write_tiny_cross_model(world / "cross", load_pairs(MADE / "pairs.csv"))
    found = told("export", "cross", "--format", "onnx", "--max-loss", 1, *plain, "--output", "cross-onnx")
    assert [words[:2] for words in found] == [["predict", "cross-onnx"]]
    evaluate, predict = told("combine", MODEL, "cross", *NAMED, "--output", f"{FOLDER}/both")
    assert evaluate[:4] == ["evaluate", f"{FOLDER}/both", "--data", "OTHERS.csv"]
    assert option(evaluate, "--columns") == COLUMNS
    told(*predict)


def test_training_without_labels_leads_to_its_corpus(told) -> None:
    read = "--unlabelled", *TEXTS
    dedupe, train, calibrate = told("train", "--data", QUESTIONS, *read, *QUICK, "--output", f"{FOLDER}/u")
    assert dedupe == ["dedupe", f"{FOLDER}/u", QUESTIONS, *TEXTS, "--dry-run"]
    assert option(train, "--encoder") == f"{FOLDER}/u" and calibrate[1] == f"{FOLDER}/u"
    told(*dedupe)


def test_suspects_are_left_out_of_the_same_training(told) -> None:
    suspects = f"{FOLDER}/suspects [1].csv"
    options = *NAMED, *QUICK, "--folds", 2, "--confidence", 0.3
    (train,) = told("audit", *options, "--output", suspects)
    assert option(train, "--drop-suspects") == suspects
    given = shown.parse(train).params
    assert (given["data"], given["columns"], given["labels"]) == ([PAIRS], COLUMNS, LABELS[1])
    assert (given["encoder"], given["skip_bad_rows"], given["batch_size"]) == ("static", True, 16)


def test_the_best_of_a_comparison_is_trained_on_the_same_pairs(told, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compare", "learning_curve"):
        monkeypatch.setattr(f"qpairs.experiments.{module}.run_in_process", _here, raising=module == "compare")
    cells = "--encoders", "static", "--losses", "contrastive", "--miners", "offline", "--seeds", 1
    ends = "--epochs", "0.5", "--budget-minutes", "0", "--batch-size", 16, "--mined", 2, "--clip", 0.5
    (train,) = told("compare", *NAMED, *cells, *ends, "--output", f"{FOLDER}/cmp")
    given = shown.parse(train).params
    assert (given["data"], given["columns"], given["labels"]) == ([PAIRS], COLUMNS, LABELS[1])
    assert (given["encoder"], given["loss"], given["sampler"]) == ("static", "contrastive", "triplets")
    assert (given["mined"], given["clip"], given["batch_size"], given["skip_bad_rows"]) == (2, 0.5, 16, True)
    assert (given["epochs"], given["budget_minutes"], given["output"]) == (None, None, None)


def _here(function, log_file: Path, on_progress):
    return function(on_progress)


def test_a_learning_curve_leads_to_a_comparison_on_the_same_pairs(told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpairs.experiments.compare.run_in_process", _here)
    sizes = "--sizes", "20,40,60,80", "--seeds", 1, "--equal-epochs"
    found = told("learning-curve", *NAMED, *sizes, *QUICK, "--output", f"{FOLDER}/curve")
    for words in found:
        given = shown.parse(words).params
        assert words[0] == "compare"
        assert (given["data"], given["columns"], given["labels"]) == ([PAIRS], COLUMNS, LABELS[1])


def test_modules_that_read_the_files_are_imported_again(told, world: Path) -> None:
    (world / "imported_again.py").write_text("")
    (train,) = told("data", PAIRS, *READ, *LABELS, "--import", "imported_again.py")
    assert option(train, "--import") == "imported_again.py"
    (train,) = told("data", PAIRS, *READ, *LABELS)
    assert "--import" not in train


def test_other_commands_show_none(told) -> None:
    assert told("losses") == [["losses", "NAME"]]
    told("losses", "contrastive")
    told("train", *NAMED, *QUICK, "--dry-run")


@pytest.mark.parametrize(
    "word",
    [
        *("[/b or]  x", "it's", 'a "b" $c `d` \\', ":smile: ~", ""),
        *("a\nb\tc\x1b[2J'", "ü\u202e \u2028", "\udcff\udc80 9"),
    ],
)
def test_a_shell_reads_what_is_shown_as_the_same_words(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from qpairs.commands.terminal import print_command

    print_command("printf", "%s|", word, "end")
    shown_line = capsys.readouterr().out
    assert shown_line == shown_command("printf", "%s|", word, "end") + "\n"
    done = subprocess.run(["bash", "-c", shown_line], capture_output=True, check=True)
    assert done.stdout == word.encode("utf-8", "surrogateescape") + b"|end|"
