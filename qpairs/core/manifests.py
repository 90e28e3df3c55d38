"""The JSON files that describe our folders: one reader, so that messages about a damaged or newer one are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason
from qpairs.core.shapes import Shape, WrongShape, anything, record, whole

T = TypeVar("T")


def read_json(file: Path, shape: Shape, *, missing: str, mend: str = "") -> Any:
    """The content of one of our JSON files.

    Args:
        file: the file.
        shape: what it must hold.
        missing: the message if there is no such file.
        mend: what to do about a damaged one.

    Raises:
        UserError: the file is missing, cannot be read, is not JSON, or does not hold what it should.

    >>> import tempfile
    >>> from qpairs.core.shapes import record, whole
    >>> file = Path(tempfile.mkdtemp(), "split.json")
    >>> _ = file.write_text('{"n": 3}')
    >>> read_json(file, record({"n": whole()}), missing="no split here")
    {'n': 3}
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({os_reason(error)})") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: damaged (not UTF-8){mend and f'; {mend}'}") from None
    return parse_json(text, shape, where=str(file), mend=mend)


def parse_json(text: str, shape: Shape, *, where: str, mend: str = "") -> Any:
    """The value of a JSON text.

    Args:
        text: the text.
        shape: what it must hold.
        where: what messages name as its origin.
        mend: what to do about a damaged one.

    Raises:
        UserError: it is not JSON, or does not hold what it should.

    >>> from qpairs.core.shapes import each, whole
    >>> parse_json("[1, 2]", each(whole()), where="line 3")
    [1, 2]
    """
    try:
        data = json.loads(text)
        shape(data, "")
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, WrongShape) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: damaged ({told}){mend and f'; {mend}'}") from None
    return data


@contextmanager
def reading_weights(file: Path, mend: str = "") -> Iterator[None]:
    """Reports in one line that a file of weights or arrays, read in this block, is missing or damaged.

    Args:
        file: in the format safetensors.
        mend: what to do about it.

    Raises:
        UserError: it is missing, cut off, not in that format, or lacks what is looked for.

    >>> from safetensors.numpy import load_file
    >>> with reading_weights(Path("nothing.safetensors")):
    ...     load_file("nothing.safetensors")
    Traceback (most recent call last):
    qpairs.core.exceptions.UserError: nothing.safetensors: missing
    """
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file}: missing{mend and f'; {mend}'}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({os_reason(error)})") from None
    except (SafetensorError, ValueError, LookupError) as error:
        raise UserError(f"{file}: damaged ({' '.join(str(error).split())[:200]}){mend and f'; {mend}'}") from None


def read_manifest(
    file: Path, parse: Callable[[dict[str, Any]], T], *, newest: int, missing: str, shape: Shape = anything
) -> T:
    """The content of a manifest.

    Args:
        file: a JSON object with the key `format`, a whole number that rises with incompatible changes.
        parse: converts the object to what the caller wants; a missing key or a wrong type in it means a damaged file.
        newest: the highest format that this version reads.
        missing: the message if there is no such file.
        shape: what it must hold, in any format that this version reads.

    Raises:
        UserError: the file is missing, damaged, or written by a newer qpairs.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "index.json")
    >>> _ = file.write_text('{"format": 1, "count": 3}')
    >>> read_manifest(file, lambda data: data["count"], newest=1, missing="no index here")
    3
    """
    data = read_json(file, record({"format": whole(1)}, others=True), missing=missing)
    if data["format"] > newest:
        versions = data.get("versions")
        version = data.get("qpairs") or (versions.get("qpairs", "?") if isinstance(versions, dict) else "?")
        raise UserError(f"{file.parent}: written by a newer qpairs ({version}); upgrade qpairs")
    try:
        shape(data, "")
        return parse(data)
    except UserError:
        raise
    except WrongShape as error:
        raise UserError(f"{file}: damaged ({error})") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{file}: damaged ({type(error).__name__}: {error})") from None
