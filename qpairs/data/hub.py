"""Data sets of the Hugging Face Hub and local data set folders, read by the package `datasets`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qpairs.core.exceptions import UserError
from qpairs.data.class_names import class_names, column_types, named_classes
from qpairs.data.columns import LABEL_COLUMNS
from qpairs.data.formats import FORMATS, Row, Types, ending_of
from qpairs.data.pairs import UNLABELLED

if TYPE_CHECKING:
    import datasets

_NAME = re.compile(r"(?P<id>[^:\[\]]+)(:(?P<config>[^:\[\]]+))?(\[(?P<split>.+)\])?")


@dataclass(frozen=True)
class DatasetName:
    """A data set of the Hub, or a folder, and the part of it to read; written ID:config[split]."""

    identity: str
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A loaded data set as a `qpairs.data.formats.Reader`."""

    data: Any
    unit: str = "row"

    @cached_property
    def columns(self) -> Types:
        """As in `Reader`."""
        return dict(column_types(self.data.features.arrow_schema))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """As in `Reader`."""
        classes = class_names(self.data.features.arrow_schema)
        cells = (named_classes(self.data[name][:], classes.get(name, ())) for name in columns)
        return enumerate(zip(*cells, strict=True), start=1)


def dataset_name(text: str) -> DatasetName | None:
    """What a text names: an existing folder, or a possible data set of the Hub; None if neither.

    >>> dataset_name("nyu-mll/glue:qqp[train]")
    DatasetName(identity='nyu-mll/glue', config='qqp', split='train')
    """
    if os.path.isdir(text):
        return DatasetName(text)
    parts = _NAME.fullmatch(text)
    name = DatasetName(*parts.group("id", "config", "split")) if parts else DatasetName(text)
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", name.identity) and ending_of(name.identity) not in FORMATS
    return name if is_id or os.path.isdir(name.identity) else None


def open_dataset(name: DatasetName, where: str) -> Dataset:
    """Loads a data set. Its splits are joined, except those with hidden labels, as test splits often have.

    Hidden labels are all -1 (GLUE) or all missing, or the split has no label column while another one has it.

    Args:
        name: the data set.
        where: the source in the user's words, for messages.

    Raises:
        UserError: it cannot be found, fetched or read.
    """
    with _quiet_datasets(where) as datasets:
        if os.path.isdir(name.identity):
            found = _load_folder(replace(name, identity=os.path.abspath(name.identity)))
        else:
            found = _fetch(name, where)
        splits = list(found.values()) if isinstance(found, dict) else [found]
        labelled = [split for split in splits if _label_columns(split)] or splits
        return Dataset(datasets.concatenate_datasets([s for s in labelled if not _hidden_labels(s)] or labelled))


@contextlib.contextmanager
def _quiet_datasets(where: str) -> Iterator[Any]:
    """The package `datasets`, without progress bars and log; its errors become one line about the source."""
    import datasets
    from huggingface_hub import utils as hub

    switches = [m for m in (datasets, hub) if not m.are_progress_bars_disabled()]
    level = logging.root.manager.disable
    for module in switches:
        module.disable_progress_bars()
    logging.disable(logging.CRITICAL)
    try:
        yield datasets
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(f"{_unreadable(where)}: cannot be read: {textwrap.shorten(reason, 300)}") from error
    finally:
        logging.disable(level)
        for module in switches:
            module.enable_progress_bars()


def _unreadable(where: str) -> str:
    """What could not be read: for a folder, its one file, or the first if no kind of file in it is known."""
    if not os.path.isdir(where) or not os.access(where, os.R_OK):
        return where
    files = sorted(name for name in os.listdir(where) if not name.startswith("."))
    if any(os.path.isdir(os.path.join(where, name)) for name in files):
        return where
    strange = not any(ending_of(file) in FORMATS for file in files if not file.endswith(".zip"))
    return os.path.join(where, files[0]) if len(files) == 1 or (files and strange) else where


def _load_folder(name: DatasetName) -> Any:
    import datasets

    folder, split = name.identity, name.split
    if not any(os.path.exists(os.path.join(folder, mark)) for mark in ("state.json", "dataset_dict.json")):
        return _load_files(name)
    data = datasets.load_from_disk(folder, keep_in_memory=True)
    splits = data if isinstance(data, dict) else {}
    if name.config or (split and split not in splits):
        raise UserError(f"{folder}: no part {name.config or split!r} in it; there are: {', '.join(splits) or 'none'}")
    return splits[split] if split else data


def _load_files(name: DatasetName) -> Any:
    """The data files of a folder, in memory and without the cache, which identifies a file only by its change time."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        builder = datasets.load_dataset_builder(name.identity, name.config, cache_dir=cache)
        if hasattr(builder.config, "keep_default_na"):
            builder.config.keep_default_na = False  # in a CSV file the question "NA" is a text
        builder.download_and_prepare()
        if not any(part.num_examples for part in builder.info.splits.values()):
            return datasets.Dataset.from_dict({})
        return builder.as_dataset(name.split, in_memory=True)


def _fetch(name: DatasetName, where: str) -> Any:
    """A data set of the Hub, or its copy in the cache of `datasets` if the Hub does not answer.

    The Hub is asked once first, because `datasets` would retry for half a minute.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    offline = datasets.config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(name.identity, timeout=10)
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{where}: no such folder here, and no such dataset on the Hugging Face Hub (or it is private); check the "
            "name, or log in with `hf auth login`"
        ) from None
    except HfHubHTTPError:
        raise
    except Exception:  # of whatever HTTP library is underneath: there was no answer
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name.identity, name.config, split=name.split)
    except ConnectionError:
        raise UserError(
            f"{where}: no such folder here, and the Hugging Face Hub cannot be reached; check the network, or give a "
            "local file or folder"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _label_columns(split: datasets.Dataset) -> list[str]:
    return [name for name in split.column_names if name.lower() in LABEL_COLUMNS]


def _hidden_labels(split: datasets.Dataset) -> bool:
    names = _label_columns(split)
    return any(len(split) > 0 and all(label in (None, UNLABELLED) for label in split[name][:]) for name in names)
