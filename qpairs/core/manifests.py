"""The JSON files that describe our folders: one reader, so that a damaged or newer one is told in the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from qpairs.core.exceptions import UserError

T = TypeVar("T")


def read_manifest(file: Path, parse: Callable[[dict[str, Any]], T], *, newest: int, missing: str) -> T:
    """What a manifest says.

    Args:
        file: a JSON object with the key `format`, a whole number that rises with incompatible changes.
        parse: from the object to what the caller wants; a missing key or a wrong type in it means a damaged file.
        newest: the highest format that this version reads.
        missing: the message where there is no such file.

    Raises:
        UserError: the file is missing, damaged, or written by a newer qpairs.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "index.json")
    >>> _ = file.write_text('{"format": 1, "count": 3}')
    >>> read_manifest(file, lambda data: data["count"], newest=1, missing="no index here")
    3
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] > newest:
            version = data.get("qpairs") or data.get("versions", {}).get("qpairs", "?")
            raise UserError(f"{file.parent}: written by a newer qpairs ({version}); upgrade qpairs")
        return parse(data)
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: damaged ({type(error).__name__}: {error})") from None
