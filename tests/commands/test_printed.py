"""What the commands print of others, paths included, goes through one place, and outputs that are there stay."""

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from qpairs.commands import app, terminal
from qpairs.core.tables import guarded, unguarded, write_table
from qpairs.retrieval.index import model_of, open_index

COMMANDS = Path(terminal.__file__).parent
MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
MAKES_INERT = {
    "plain",
    "percent",
    "counted",
    "_true_of",
    "duration",
    "shown_path",
    "shown_command",
    "_interval",
    "_name",
    "called_from",
    "heading",
    "round",
}
OWN = {
    *(
        "__version__",
        "name",
        "before",
        "after",
        "MORE",
        "NEAREST",
        "KEYS",
        "SAID[key]",
        "which",
        "kind",
        "cell",
        "title",
    ),
    *("record.cell.seed", "record.error", "parts", "cut.fingerprint", "unit", "figures", "one", "another", "both"),
    *("doubt", "lead", "colour", "what", "score", "label", "how", "names", "b['kind']", "unknown", "price", "where"),
    *("made.kind", "KINDS[made.kind]", "why", "made.state.get('effort', 0)", "about", "host", "number", "folder"),
    *("sizes", "limit", "counts", "arrow", "passes", "known.more"),
    *("answer", "scores", "judged", "reasons", "shown", "more", "result.dimension", "result.plan.dtype"),
}  # texts of our own, numbers, and what was made inert where it was put together


def _values() -> Iterator[tuple[str, ast.expr]]:
    """Every value inside a text that a command prints, without a format of its own, which numbers have."""
    for file in sorted(COMMANDS.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("print", "add_row", "add_column"):
                for part in ast.walk(call):
                    if isinstance(part, ast.FormattedValue) and part.format_spec is None:
                        yield f"{file.name}:{part.lineno}", part.value


def _is_inert(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        function = value.func
        if isinstance(function, ast.Attribute) and function.attr in ("capitalize", "join"):
            return isinstance(function.value, ast.Constant) or _is_inert(function.value)
        return isinstance(function, ast.Name) and function.id in MAKES_INERT
    if isinstance(value, ast.IfExp | ast.BoolOp | ast.BinOp):
        return True  # of constants: their parts with values in them are looked at, too
    return isinstance(value, ast.Constant)


def test_every_text_of_others_is_made_inert_before_it_is_printed() -> None:
    wrong = [f"{where} {ast.unparse(value)}" for where, value in _values() if not _is_inert(value)]
    assert [line for line in wrong if line.split(" ", 1)[1] not in OWN] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[/b or]  x", r"\[/b or]  x"),
        ("a\nb\x1b", r"a\nb\x1b"),
        ("\udcff", r"\udcff"),
        ("\u2028", r"\u2028"),
        ("ö", "ö"),
    ],
)
def test_a_path_is_shown_as_it_is(text: str, shown: str) -> None:
    assert terminal.shown_path(Path(text)) == shown


def test_a_command_can_be_copied_whatever_its_paths_are() -> None:
    console = Console(width=500)
    with console.capture() as capture:
        console.print(terminal.shown_command("qpairs", "index", Path("[/b or]  ü")))
    assert capture.get() == "qpairs index '[/b or]  ü'\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MADE / "one-static", "model")
    shutil.copy(MADE / "pairs.csv", "pairs.csv")
    (tmp_path / "q.csv").write_text("question\n" + "\n".join(f"How do I pay {n} times?" for n in range(12)) + "\n")
    return tmp_path


NAME = "[/b or]  für [bold]"
TO_FILES = {
    "predict": (["predict", "model", "pairs.csv"], "--output", ".csv"),
    "evaluate": (["evaluate", "model", "--data", "pairs.csv"], "--json", ".json"),
    "data": (["data", "pairs.csv"], "--contradictions", ".csv"),
    "report": (["report", "model", "--data", "pairs.csv"], "--output", ".html"),
}
TO_FOLDERS = {
    "embed": ["embed", "model", "q.csv"],
    "dedupe": ["dedupe", "model", "q.csv", "--threshold", "0.9"],
    "calibrate": ["calibrate", "model", "--data", "pairs.csv"],
    "errors": ["errors", "model", "--data", "pairs.csv"],
}


@pytest.mark.parametrize("command", TO_FILES)
def test_a_file_that_is_there_is_kept_unless_it_may_go(command: str, place: Path) -> None:
    arguments, option, ending = TO_FILES[command]
    file = place / f"{NAME}{ending}"
    file.parent.mkdir()  # the name holds a slash
    file.write_text("mine")
    refused = CliRunner().invoke(app, [*arguments, option, str(file)])
    assert f"{file}: is there already; name another file with {option}, or pass --overwrite" in str(refused.exception)
    assert file.read_text() == "mine"
    done = CliRunner().invoke(app, [*arguments, option, str(file), "--overwrite"])
    assert done.exit_code == 0, done.exception
    assert file.read_text() != "mine"


@pytest.mark.parametrize("command", TO_FOLDERS)
def test_a_folder_with_brackets_spaces_and_letters_in_its_name_is_shown(command: str, place: Path) -> None:
    done = CliRunner().invoke(app, [*TO_FOLDERS[command], "--output", NAME])
    assert done.exit_code == 0, done.exception
    assert NAME in done.output


def test_cells_that_spreadsheets_compute_are_marked_and_come_back(tmp_path: Path) -> None:
    import pandas

    texts = ["=1+1", "+x", "-5 or 5?", "@you", "'=x", "''-y", "'tis", "plain", "\ttab", "-"]
    for raw, written in ((False, [guarded(text) for text in texts]), (True, texts)):
        write_table(tmp_path / "a.csv", pandas.DataFrame({"question": texts, "n": range(len(texts))}), raw=raw)
        found = pandas.read_csv(tmp_path / "a.csv")["question"].tolist()
        assert found == written
        assert raw or [unguarded(text) for text in found] == texts
    assert not any(text[0] in "=+-@\t" for text in map(guarded, texts))


def test_an_index_is_used_with_its_own_model_alone(place: Path) -> None:
    runner = CliRunner()
    for arguments in (["embed", "model", "q.csv", "--output", "emb"], ["index", "emb", "--output", "idx"]):
        assert runner.invoke(app, arguments).exit_code == 0
    done = runner.invoke(app, ["search", "idx", "How do I pay?", "-k", "1"])
    assert "Model: " in done.output
    assert model_of(open_index("idx"), "--model") == place / "model"
    manifest = json.loads((place / "idx" / "index.json").read_text())
    other = place / "elsewhere" / "another"
    shutil.copytree(MADE / "two", other)
    (place / "idx" / "index.json").write_text(json.dumps({**manifest, "model": str(other)}))
    refused = runner.invoke(app, ["search", "idx", "How do I pay?"])
    assert "made by the model" in str(refused.exception)


def test_ids_that_an_index_lacks_are_named_and_any_id_can_be_deleted(place: Path) -> None:
    runner = CliRunner()
    (place / "ids.csv").write_text('id,question\n"a\nb",How do I pay?\n c ,Where is it?\nd,Who are you?\n')
    embed = ["embed", "model", "ids.csv", "--text-column", "question", "--id-column", "id", "--output", "emb"]
    for arguments in (embed, ["index", "emb", "--output", "idx"]):
        assert runner.invoke(app, arguments).exit_code == 0
    before = open_index("idx").manifest.count
    (place / "gone.jsonl").write_text('"a\\nb"\n"[/b]"\n')
    done = runner.invoke(app, ["index", "idx", "--delete", "gone.jsonl"])
    assert done.exit_code == 0, done.exception
    assert "1 question deleted" in done.output
    assert "1 ids are not in the index: '[/b]'" in done.output
    assert open_index("idx").manifest.count == before - 1
