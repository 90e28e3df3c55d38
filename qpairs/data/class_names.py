"""Columns of classes: `ClassLabel` of the package `datasets`, numbers whose names are stored with the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

_WRITTEN_AT = b"huggingface"  # in the metadata of a schema


def class_names(schema: pyarrow.Schema) -> Mapping[str, Sequence[str]]:
    """The names of the classes of each column that holds their numbers.

    >>> import datasets
    >>> kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no"])})
    >>> class_names(kinds.arrow_schema)
    {'label': ['yes', 'no']}
    """
    import pyarrow

    try:
        features = json.loads((schema.metadata or {})[_WRITTEN_AT])["info"]["features"]
        named = {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    numbers = {field.name for field in schema if pyarrow.types.is_integer(field.type)}
    return {name: names for name, names in named.items() if name in numbers}


def column_types(schema: pyarrow.Schema) -> list[tuple[str, pyarrow.DataType]]:
    """The name and the type of each column; the type of a class column is text.

    >>> import pyarrow
    >>> column_types(pyarrow.schema({"score": pyarrow.int8()}))
    [('score', DataType(int8))]
    """
    import pyarrow

    named = class_names(schema)
    return [(field.name, pyarrow.string() if field.name in named else field.type) for field in schema]


def named_classes(column: Sequence[Any], names: Sequence[str]) -> Sequence[Any]:
    """A column of class numbers as class names; a number without a name, such as -1 for a hidden label, as text.

    Args:
        column: the values.
        names: of the classes; none if the column holds something else, which stays unchanged.

    >>> named_classes([1, 0, -1, None], ["not_duplicate", "duplicate"])
    ['duplicate', 'not_duplicate', '-1', None]
    """
    if not names:
        return column
    known = dict(enumerate(names))
    return [None if value is None else known.get(int(value), str(value)) for value in column]
