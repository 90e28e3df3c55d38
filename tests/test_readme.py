"""What README and docs show is done: commands parse, Python runs or names what exists, links lead somewhere."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import shown
import torch

import qpairs
from qpairs.commands import UsageError
from qpairs.encoders.build import ENCODERS
from qpairs.objectives.losses import LOSSES
from qpairs.objectives.miners import MINERS
from qpairs.objectives.relations import Relation

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").glob("*.md"))
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def section(title: str, page: str = "docs/own_losses.md") -> str:
    """The first block of Python below a heading."""
    return re.search(rf"^#+ {title}\n.*?```python\n(.*?)```", PAGES[page], re.MULTILINE | re.DOTALL)[1]


def test_a_loss_is_added_with_one_function_and_one_row(
    pairs_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(pairs_csv, "mine.csv")
    before = dict(LOSSES)
    try:
        names: dict = {}
        exec(section("Adding a loss"), names)
        (added,) = LOSSES.keys() - before
    finally:
        LOSSES.clear()
        LOSSES.update(before)
    assert added in names["model"].config.loss
    sim = torch.tensor([[0.9, 0.7, 0.1]])
    relation = Relation(torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]]))
    labels = torch.tensor([1, -1, -1])
    u = torch.eye(2)[:1].expand(3, 2)
    v = torch.stack([sim[0], (1 - sim[0].square()).sqrt()], 1)
    expected = torch.nn.functional.cosine_embedding_loss(u, v, labels, margin=0.2)
    torch.testing.assert_close(names["cosine_embedding"](sim, relation, margin=0.2), expected)


def test_a_loss_a_miner_and_an_encoder_of_ones_own_go_with_a_command(run, pairs_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(section("In every command"), encoding="utf-8")
    before = [(table, dict(table)) for table in (LOSSES, MINERS, ENCODERS)]
    options = ("--loss", "gap", "--miner", "closest(floor=0.1)", "--encoder", "letters")
    try:
        done = run("train", "--import", "mine.py", *options, "--data", pairs_csv, "--epochs", "0.5", "--output", "own")
    finally:
        sys.modules.pop("mine", None)
        for table, rows in before:
            table.clear()
            table.update(rows)
    assert done.code == 0, done.err
    model = qpairs.load("own")
    assert (model.config.loss, model.config.encoder, model.dimension) == ("gap", "letters", 64)
    assert model.similarity("How do I pay?", "How do I pay?") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["gap", "closest", "letters"])
def test_what_is_of_ones_own_takes_ten_lines_at_most(name: str) -> None:
    (function,) = re.findall(rf"def {name}\(.*?(?=\n\n\n)", section("In every command"), re.DOTALL)
    assert len(function.splitlines()) + 1 <= 10


def test_python_without_files(checkpoint, pairs_csv: Path) -> None:
    frame, questions = pandas.read_csv(pairs_csv), pandas.read_csv(pairs_csv)[["question1"]]
    code = re.search(r"in a minute:\n\n```python\n(.*?)```", PAGES["docs/python.md"], re.DOTALL)[1]
    questions = questions.rename(columns={"question1": "question"})
    lines = [line for line in code.splitlines() if line.strip()]
    names = {"qpairs": qpairs, "model": checkpoint}
    for line in lines:
        names["frame"] = questions if line.startswith("model.") else frame
        exec(line, names)
    assert names["report"].n == len(frame)


def shown_commands(text: str) -> Iterator[tuple[str, bool]]:
    """The command lines of a page, and whether they stand in a block, to be run as they are, or in line."""
    for language, block in FENCE.findall(text):
        if language in ("", "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((command, True) for command in _commands(line))
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text))
    yield from ((command, False) for code in inline for command in _commands(" ".join(code.split())))


def _commands(line: str) -> Iterator[str]:
    for part in re.split(r"&&|\|(?![^\s])", line.partition("  #")[0]):
        words = part.split()
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words and words[0] in ("qpairs", "python", "torchrun", "pip", "pytest"):
            yield part[part.index(words[0]) :].strip()


COMMANDS = sorted({(page, *shown) for page, text in PAGES.items() for shown in shown_commands(text)})


def of(pattern: str) -> pytest.MarkDecorator:
    """The commands that begin like this."""
    rows = [row for row in COMMANDS if re.match(pattern, row[1])]
    return pytest.mark.parametrize(("page", "command", "in_block"), rows)


def parse(command: str, whole: bool) -> None:
    """Parses a command; of one that is not whole, arguments may be missing, but names and options must exist."""
    words = [word for word in shlex.split(command) if word != "..."]
    words = words[words.index("cli.py") + 1 :] if "cli.py" in words else words[1:]
    if words[0] not in ("COMMAND", "--version"):
        shown.parse(words, whole=whole)


@of("qpairs |torchrun |python cli.py")
def test_a_command_that_is_shown_parses(page: str, command: str, in_block: bool) -> None:
    try:
        parse(command, in_block)
    except (UsageError, qpairs.UserError) as error:
        pytest.fail(f"{page}: {command}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "command",
    [
        "qpairs trian --data x",
        "qpairs train --no-such",
        "qpairs train --data",
        "qpairs evaluate a b",
        "qpairs serve a --text-column b",
    ],
)
def test_the_check_of_commands_finds_what_is_wrong(command: str) -> None:
    with pytest.raises((AssertionError, UsageError, qpairs.UserError)):
        parse(command, True)


def test_commands_are_found_in_pages() -> None:
    assert list(_commands("QPAIRS_TOKEN=x qpairs serve m --port 0  # a service")) == ["qpairs serve m --port 0"]
    assert list(_commands("yes n | qpairs start a.csv && pytest -m gpu")) == ["qpairs start a.csv", "pytest -m gpu"]
    assert len(COMMANDS) > 150
    assert sum(in_block for *_, in_block in COMMANDS) > 80


@of(r"python \w+/\w+\.py")
def test_a_script_that_is_shown_is_there_and_has_the_options(page: str, command: str, in_block: bool) -> None:
    script, *words = shlex.split(command.replace("[", "").replace("]", ""))[1:]
    options = {word for word in words if word.startswith("--")}
    source = (ROOT / script).read_text(encoding="utf-8")
    named = {option for option in options if f'"{option}"' in source}  # else it is named as its parameter
    named |= {
        o for o in options if re.search(rf"^    {o[2:].removeprefix('no-').replace('-', '_')}: ", source, re.MULTILINE)
    }
    assert options == named, f"{page}: {command}"


@of("pip |pytest")
def test_an_installation_and_a_run_of_tests_name_what_exists(page: str, command: str, in_block: bool) -> None:
    for extra in re.findall(r"\[([\w,]+)\]", command):
        assert set(extra.split(",")) <= EXTRAS.keys(), f"{page}: {command}"
    markers = {
        line.partition(":")[0]
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    }
    words = shlex.split(command)
    assert {words[at + 1] for at, word in enumerate(words) if word == "-m"} <= markers
    assert all((ROOT / word).exists() for word in words if re.match("(tests|requirements)/", word)), (
        f"{page}: {command}"
    )


@of("python -c ")
def test_a_line_of_python_that_is_shown_runs(page: str, command: str, in_block: bool) -> None:
    exec(shlex.split(command)[2], {})


PYTHON = [
    (page, code)
    for page, text in sorted(PAGES.items())
    for language, code in FENCE.findall(text)
    if language == "python"
]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PYTHON)])
def test_python_that_is_shown_names_what_exists(page: str, code: str, checkpoint: Any) -> None:
    names: dict[str, Any] = {"qpairs": qpairs, "model": checkpoint}
    tree = ast.parse(code)
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (a.asname or a.name.split(".")[0]): importlib.import_module(a.name.split(".")[0]) for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    known = {name: thing for name, thing in names.items() if name not in assigned - {"model"}}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _named(node, known)
        if isinstance(node, ast.Call) and callable(function := _named(node.func, known)):
            try:
                accepted = inspect.signature(function).parameters
            except ValueError:  # a function in C
                continue
            if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                assert {keyword.arg for keyword in node.keywords} <= accepted.keys(), f"{page}: {ast.unparse(node)}"


def _named(node: ast.expr, names: dict[str, Any]) -> Any:
    """What a dotted name stands for; None where its first name is not known here."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (owner := _named(node.value, names)) is not None:
        return getattr(owner, node.attr)
    return None


LINKS = [
    (page, link) for page, text in sorted(PAGES.items()) for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text))
]


@pytest.mark.parametrize(("page", "link"), [(page, link) for page, link in LINKS if "://" not in link])
def test_a_link_leads_to_a_file_and_a_heading(page: str, link: str) -> None:
    path, _, heading = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists(), f"{page}: {link}"
    if heading:
        titles = re.findall(r"^#+ (.+)$", FENCE.sub("", target.read_text(encoding="utf-8")), re.MULTILINE)
        slugs = {re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in titles}
        assert heading in slugs, f"{page}: {link}"


def test_the_readme_is_short_and_begins_with_what_works() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150
    first, second = (block.strip() for language, block in FENCE.findall(PAGES["README.md"])[:2] if not language)
    assert first == "pip install -e '.[offline]' && qpairs train"
    assert second == "pip install -e '.[offline,test]' && pytest"


@pytest.mark.parametrize("name", ["losses.md", "reference/cli.md"])
def test_the_pages_made_from_the_code_are_those_of_this_code(name: str) -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["pages"]()
    assert made[name] == PAGES[f"docs/{name}"], "run python docs/make_reference.py"


def test_every_loss_is_in_the_gallery_and_has_a_picture() -> None:
    for name in LOSSES:
        assert f"### {name}\n" in PAGES["docs/losses.md"]
        assert (ROOT / "docs" / "pictures" / "losses" / f"{name}.svg").exists(), "run python docs/make_pictures.py"


def test_the_pictures_are_those_of_this_code() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))["drawings"]()
    number = re.compile(r"-?\d+(?:\.\d+)?")
    for name, svg in drawn.items():
        kept = (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8")
        assert number.sub("", kept) == number.sub("", svg), f"{name}: run python docs/make_pictures.py"
        expected = [float(found) for found in number.findall(svg)]
        assert [float(found) for found in number.findall(kept)] == pytest.approx(expected, abs=0.2), name


def test_every_public_name_is_in_the_python_reference() -> None:
    page = PAGES["docs/reference/python.md"]
    shown = re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)
    for name in shown:
        _, found = name.rsplit(".", 1)[0], importlib.import_module("qpairs")
        for part in name.split(".")[1:]:
            found = (
                getattr(found, part) if hasattr(found, part) else importlib.import_module(f"{found.__name__}.{part}")
            )
    last = {name.rsplit(".", 1)[1] for name in shown}
    assert set(qpairs.__all__) - last - {"LOSSES", "MINERS", "sklearn"} == set()


def test_the_chapters_of_the_site_are_the_pages_that_are_there() -> None:
    nav = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} == set(nav)
