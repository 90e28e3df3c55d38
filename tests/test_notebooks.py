"""The notebooks run, in small form, and what is committed of them is whole and can be shown to anybody."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import pytest
from children import run_script
from conftest import write_csv
from ipykernel.kernelspec import write_kernel_spec

import qpairs
from qpairs.data.splits import question_components

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/\w[\w.-]*/\w|\b[A-Z]:\\")
WARNED = (  # of the small data of these tests, and of pairs that the model was trained on
    "more than half of the pairs are linked by shared questions",
    "calibrate: 265 of 349 questions were seen in training",
)
LIMITS = {"loss_gallery": 1_500_000}  # bytes
LIMIT = 500_000  # of the others

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """Errors, and what went to standard error: warnings and logs."""
    errors = [str(o) for o in outputs(notebook) if o.output_type == "error"]
    said = [line for o in outputs(notebook) if o.get("name") == "stderr" for line in o["text"].splitlines()]
    return errors + [line for line in said if not line.startswith(WARNED)]


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """All that can be read in a notebook, pictures aside."""
    shown = outputs(notebook)
    data = [text for output in shown for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return [cell.source for cell in notebook.cells] + data + [output.get("text", "") for output in shown]


IN_SHELL = """
import pathlib, sys, warnings
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
import nbformat
from IPython.core.interactiveshell import InteractiveShell

path, parameters, record = sys.argv[1:]
shell = InteractiveShell.instance()
shell.display_formatter.active_types = ["text/plain", "text/html"]
shown = []
shell.display_pub.publish = lambda data, **_: shown.append(data)
shell.displayhook.write_format_data = lambda data, *_: shown.append(data)
for cell in nbformat.read(path, as_version=4).cells:
    if cell.cell_type == "code":
        shell.run_cell(cell.source, store_history=True).raise_error()
        if "parameters" in cell.metadata.get("tags", []):
            shell.run_cell(parameters).raise_error()
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")
pathlib.Path(record).write_text(chr(10).join(text for data in shown for text in data.values()))
"""


@pytest.fixture
def in_shell(tmp_path: Path) -> Callable[..., str]:
    """Runs the cells of a notebook with parameters in an IPython that is forked; gives all that they show.

    What a kernel and papermill are needed for is left to the slow tests: that takes a new interpreter, and its imports.
    """

    def run(path: Path, **parameters: object) -> str:
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        (tmp_path / "here").mkdir()
        variables = {"QPAIRS_SMALL": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
        done = run_script(IN_SHELL, path, given, tmp_path / "shown", cwd=tmp_path / "here", env=variables)
        said = [line for line in done.stderr.splitlines() if not line.startswith(WARNED)]
        assert (done.returncode, said) == (0, []), done
        return done.stdout + (tmp_path / "shown").read_text()

    return run


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nbformat.NotebookNode]:
    """Runs a notebook with parameters in a kernel of its own, in an empty folder."""
    write_kernel_spec(tmp_path / "kernels" / "python3")  # this interpreter, whatever else is registered
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("QPAIRS_SMALL", "1")

    def run(path: Path, **parameters: object) -> nbformat.NotebookNode:
        (tmp_path / "here").mkdir()
        return papermill.execute_notebook(
            path, None, parameters, cwd=tmp_path / "here", progress_bar=False, execution_timeout=300
        )

    return run


def test_the_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["data", "error_analysis", "loss_gallery", "quickstart"]


@pytest.fixture(scope="module")
def small_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 2,000 of the bundled pairs, whole components of them."""
    pairs = qpairs.load_pairs("sample")
    component = question_components(pairs)[pairs.left]
    order = sorted(range(len(pairs)), key=lambda row: (int(component[row]), row))
    rows = [(*pairs.texts(row), int(pairs.labels[row])) for row in order[:2000]]
    return write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", rows)


def test_data_of_the_users_are_described(small_csv: Path, in_shell: Callable[..., str]) -> None:
    assert "2,000" in in_shell(FOLDER / "data.ipynb", source=str(small_csv), epochs=1)


@pytest.mark.parametrize("name", ["loss_gallery", "quickstart"])
def test_what_takes_no_data_runs_without_a_complaint(name: str, in_shell: Callable[..., str]) -> None:
    assert "How do I reset my password?" in in_shell(FOLDER / f"{name}.ipynb")


@pytest.mark.slow
@notebooks
def test_in_a_kernel_they_run_on_the_bundled_pairs(path: Path, execute: Callable[..., nbformat.NotebookNode]) -> None:
    assert complaints(execute(path, **({"epochs": 1} if path.stem == "data" else {}))) == []


@pytest.mark.slow
def test_in_a_kernel_data_of_the_users_are_described(
    small_csv: Path, execute: Callable[..., nbformat.NotebookNode]
) -> None:
    assert complaints(execute(FOLDER / "data.ipynb", source=str(small_csv), epochs=1)) == []


def test_errors_are_analysed_of_a_checkpoint_and_pairs_of_the_users(
    pairs_csv: Path, checkpoint: qpairs.Checkpoint, in_shell: Callable[..., str]
) -> None:
    shown = in_shell(FOLDER / "error_analysis.ipynb", checkpoint=str(checkpoint.path), data=str(pairs_csv))
    assert "600 pairs" in shown
    assert f"F1 {qpairs.evaluate(checkpoint, pairs_csv).f1:.3f} at the threshold" in shown


@notebooks
def test_the_committed_form_was_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    pictures = {"quickstart": "text/html"}
    assert any(pictures.get(path.stem, "image/png") in output.get("data", {}) for output in outputs(notebook))
    assert complaints(notebook) == []


@notebooks
def test_the_committed_form_is_small_and_names_no_place(path: Path) -> None:
    assert path.stat().st_size < LIMITS.get(path.stem, LIMIT)
    assert [text for text in texts(nbformat.read(path, as_version=4)) if ABSOLUTE_PATH.search(text)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at /home/me/x.py:3", True),
        ("'/tmp/run'", True),
        (r"C:\runs", True),
        ("<td>a</td><td>b</td>", False),
        ("https://host/a/b", False),
        ("and/or, runs/a/b", False),
    ],
)
def test_what_an_absolute_path_is(text: str, found: bool) -> None:
    assert bool(ABSOLUTE_PATH.search(text)) == found
