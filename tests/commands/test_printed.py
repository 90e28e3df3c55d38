"""What the commands print of others, paths included, goes through one place, and outputs that are there stay."""

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import refused
from typer.testing import CliRunner

from qpairs.commands import app, terminal
from qpairs.core.tables import guarded, unguarded, write_table
from qpairs.retrieval.index import model_of, open_index

COMMANDS = Path(terminal.__file__).parent
MADE = Path(__file__).parents[1] / "fixtures" / "commit_48e0593"
MAKES_INERT = {
    *("plain", "one_line", "shown_path", "_inert", "_name"),  # texts of others
    *("percent", "counted", "duration", "called_from", "heading", "round", "str"),  # numbers, and texts of our own
    *("_interval", "_share", "_megabytes", "_shown"),
}
OWN: dict[str, str] = {
    "__init__.py": "__version__",
    "calibrate.py": "name|before|moved|column|*cells",
    "combine.py": "column|name|which",
    "comparison.py": "name|kind|sizes|record.cell.seed|record.error|words|line|*reads|*figures|cell",
    "data.py": "cut.fingerprint|title|value|parts|name|limit",
    "dedupe.py": "name|unit|found|figures|one|another|both|way|doubt|lead|colour|row.why|differ|*cells",
    "embed.py": "result.dimension|result.plan.dtype",
    "errors.py": "what|score|label|how|title|column|*itertools.chain.from_iterable((_bar(word, most) for word in row))",
    "export.py": "format|column",
    "judgement.py": "column|s['name']|*values|names|counts",
    "label.py": "unknown|price|where|without|column|*cells",
    "learning_curve.py": "name|fitted",
    "probes.py": "b['kind']|score|label|column|wanted[b['same'], b['against']]|*figures|arrow",
    "search.py": "made.kind|KINDS[made.kind]|why|made.state.get('effort', 0)|*figures|verdict|*named|shown|more|column",
    "serve.py": "may|where",
    "start.py": "SAID[key]|number|folder|known.more|questions|before|named|_answers(session)|' ' * len(number)",
    "terminal.py": "text|level|name|before|after|names|shown_command(*words)|*figures|column|reasons|answer|scores"
    "|where and ': '|known",
    "training.py": "passes|limit|judged|part|share|column",
}  # file -> texts of our own, numbers, and what was made inert where it was put together


def _values() -> Iterator[tuple[str, int, ast.expr]]:
    """Every value that a command prints: within a text, unless it has a format of its own, as numbers have, or alone.

    It comes with the name of its file, and its line.
    """
    for file in sorted(COMMANDS.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("print", "add_row", "add_column"):
                for part in ast.walk(call):
                    if isinstance(part, ast.FormattedValue) and part.format_spec is None:
                        yield file.name, part.lineno, part.value
                for part in call.args:
                    if not isinstance(part, ast.JoinedStr) and ast.unparse(part) != "table":
                        yield file.name, part.lineno, part


def _is_inert(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        function = value.func
        if isinstance(function, ast.Attribute) and function.attr in ("capitalize", "join"):
            return isinstance(function.value, ast.Constant) or _is_inert(function.value)
        return isinstance(function, ast.Name) and function.id in MAKES_INERT
    if isinstance(value, ast.Starred) and isinstance(value.value, ast.GeneratorExp):
        return _is_inert(value.value.elt)
    if isinstance(value, ast.IfExp):
        return _is_inert(value.body) and _is_inert(value.orelse)
    if isinstance(value, ast.BoolOp):
        return all(map(_is_inert, value.values))
    if isinstance(value, ast.BinOp):
        return _is_inert(value.left) and _is_inert(value.right)
    if isinstance(value, ast.Name) and value.id.isupper():
        return True  # a constant of ours
    return isinstance(value, ast.Constant | ast.JoinedStr)  # what is in the latter is looked at by itself


def test_every_text_of_others_is_made_inert_before_it_is_printed() -> None:
    known = {(file, text) for file, texts in OWN.items() for text in texts.split("|")}
    looked_at = [(file, line, ast.unparse(value)) for file, line, value in _values() if not _is_inert(value)]
    assert [row for row in looked_at if (row[0], row[2]) not in known] == []
    assert known - {(file, text) for file, _, text in looked_at} == set()  # what is gone lets nothing through


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


def test_an_error_keeps_the_spaces_of_a_path_and_a_command(run) -> None:
    refused(run("evaluate", "a  [b]  c :x:"), "a  [b]  c :x:: no such checkpoint")


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
    assert f"{file}: exists already; name another file with {option}, or pass --overwrite" in str(refused.exception)
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
