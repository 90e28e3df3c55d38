import csv
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def sample_rows() -> list[tuple[str, str, int]]:
    """600 of the bundled pairs, whole components of them."""
    from qpairs import load_pairs
    from qpairs.splits import question_components

    pairs = load_pairs("sample")
    component = question_components(pairs)[pairs.left]
    order = sorted(range(len(pairs)), key=lambda i: (int(component[i]), i))
    return [(*pairs.texts(i), int(pairs.labels[i])) for i in order[:600]]


def write_csv(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question1", "question2", "is_duplicate"])
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def pairs_csv(sample_rows: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 600 labelled pairs in a dozen components."""
    return write_csv(tmp_path_factory.mktemp("pairs") / "pairs.csv", sample_rows)
