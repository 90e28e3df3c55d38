"""The journal of an annotator's answers: one line each, on the disk before the next question is asked.

A process that is killed loses no answer that it had read. A last line that was being written is discarded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock, os_reason
from qpairs.core.manifests import parse_json
from qpairs.core.shapes import named, number, optional, record, text, whole
from qpairs.data.identity import pair_key

ANSWERS = ("yes", "no", "unsure", "")
_answer = record(
    {"question1": text, "question2": text, "answer": text},
    {
        "probability": optional(number(0, 1)),
        "why": text,
        "tokens_in": optional(whole()),
        "tokens_out": optional(whole()),
        "seconds": number(0),
    },
)


@dataclass(frozen=True)
class Answer:
    """The answer of a language model about a pair.

    Attributes:
        question1, question2: the pair.
        answer: yes, no, unsure; '' if it gave none.
        probability: of drawing the pair, as in `qpairs.data.labels.LabelledPairs`; None if unknown.
        why: why there is no answer.
        tokens_in, tokens_out: read and written, in all attempts that were answered; None if unknown.
        seconds: until the answer, waits included.
    """

    question1: str
    question2: str
    answer: str
    probability: float | None = None
    why: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float = 0.0


class Journal:
    """The answers so far, for several threads; `open_journal` makes one."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file, self._lock = path, file, threading.Lock()
        self._answers: dict[tuple[str, str], Answer] = {}

    def __contains__(self, key: object) -> bool:
        """Whether the pair with this `pair_key` has been asked."""
        return key in self._answers

    @property
    def answers(self) -> Mapping[tuple[str, str], Answer]:
        """The answers by `pair_key`, oldest first."""
        return self._answers

    def add(self, answer: Answer) -> None:
        """Stores an answer; it is on the disk when this returns.

        Raises:
            UserError: the disk is full, or refuses for another reason.
        """
        with self._lock:
            self._write(dataclasses.asdict(answer))
            self._answers[pair_key((answer.question1, answer.question2))] = answer

    def begin(self, header: Mapping[str, str]) -> None:
        """Reads the existing answers, or starts with a header that names the model and the guideline.

        Raises:
            UserError: the file is damaged or has another header.
        """
        lines = self._file.readall().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # it was being written when the process died
            self._file.truncate(sum(map(len, lines[:-1])))
            lines.pop()
        if not lines:
            self._write(header)
            return
        for place, line in enumerate(lines, 1):
            where = f"{self._path}, line {place}"
            try:
                values = parse_json(line.decode(), _answer if place > 1 else named(text), where=where)
                answer = Answer(**values) if place > 1 else None
            except (UserError, UnicodeDecodeError):
                mend = "remove the line to ask about its pair again" if place > 1 else "move the file elsewhere"
                raise UserError(f"{where}: damaged; {mend}") from None
            if answer is None:
                self._check(values, header)
            elif answer.answer not in ANSWERS:
                raise UserError(f"{where}: {answer.answer!r} is not an answer; remove the line")
            else:
                self._answers[pair_key((answer.question1, answer.question2))] = answer

    def _check(self, found: Any, wanted: Mapping[str, str]) -> None:
        found = found if isinstance(found, dict) else {}
        differ = [name for name in wanted if found.get(name) != wanted[name]]
        if differ == ["prompt"]:
            raise UserError(
                f"{self._path}: holds answers under another guideline; name another file with --labels, or another "
                "--annotator"
            )
        if differ:
            raise UserError(
                f"{self._path}: holds answers of {str(found.get('annotator'))[:100]!r} by the model "
                f"{str(found.get('model'))[:100]!r}; name another file with --labels, or another --annotator"
            )

    def _write(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            os.fsync(self._file.fileno())
            if written < len(line):
                raise OSError(28, os.strerror(28))
        except OSError as error:
            self._file.truncate(end)
            raise UserError(f"{self._path}: cannot be written ({os_reason(error)})") from error


@contextmanager
def open_journal(labels: Path, annotator: str, header: Mapping[str, str]) -> Iterator[Journal]:
    """The journal of an annotator next to a file of labels, in `NAME.answers`, locked against other processes.

    Args:
        labels: the file of labels.
        annotator: name.
        header: the model and the guideline; a journal with another header is not continued.

    Raises:
        UserError: another process is using it, or the file is damaged, has another header, or cannot be written.
    """
    folder = labels.with_suffix(".answers")
    with exclusive_lock(folder):
        path = _file_of(annotator, folder)
        try:
            file = FileIO(path, "a+")
            file.seek(0)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({os_reason(error)})") from None
        with file:
            journal = Journal(path, file)
            journal.begin(header)
            yield journal


def _file_of(annotator: str, folder: Path) -> Path:
    """The journal of an annotator in a folder: a different one for each name, also for names without ASCII letters."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", annotator).strip("-")[:80]
    by_plain_name = folder / f"{plain}.jsonl"  # of an older version, whatever the name
    if plain == annotator or _begun_by(by_plain_name) == annotator:
        return by_plain_name
    digest = hashlib.sha256(annotator.encode()).hexdigest()[:12]
    return folder / f"{'-'.join(filter(None, (plain, digest)))}.jsonl"


def _begun_by(path: Path) -> str | None:
    """The annotator named in the header of a journal; None if there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            found = parse_json(file.readline(), named(text), where=str(path))
        return str(found["annotator"])
    except (OSError, UserError, UnicodeDecodeError, KeyError):
        return None
