"""Files of questions sent by browsers, each kept in a private folder, and the session of the chosen one."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fastapi import FastAPI

from qpairs.core.exceptions import UserError, nearest
from qpairs.core.files import atomic_file, writing
from qpairs.core.progress import Progress
from qpairs.data.compressed import OPENERS, ZIP, faults, is_compressed, open_uncompressed
from qpairs.data.formats import FORMATS, SKIP_THEM, Delimited, open_file
from qpairs.data.question_file import QuestionFile
from qpairs.data.text_columns import TextColumn, text_columns
from qpairs.models.base import Model
from qpairs.serving.current_app import CurrentApp
from qpairs.serving.start import open_session
from qpairs.serving.start_page import FAILED, Work

log = logging.getLogger(__name__)

LONGEST = 60  # characters of the name of a file that is kept, each of up to four bytes
UNPACKED = 10  # times the limit that a compressed file may have unpacked
BLOCK = 1 << 20
SHOWN = 200  # characters of a value in the row that is shown
CLOSING = 5.0  # seconds that a session has to close
SKIP_HERE = 'choose "Leave out rows that cannot be used" (skip_bad_rows)'  # what SKIP_THEM is on the page
_UNSAFE = re.compile(r"[^\w.\- ]+")


@dataclass(frozen=True)
class UploadState:
    """The progress of a file.

    Attributes:
        limit: bytes of a file.
        endings: of file names that are read; each may be followed by one of `compressed`.
        compressed: the endings of compressed files.
        file: the name of the file that was sent last; '' before the first.
        separator: the separator that was named; '' to detect it.
        separated_by: the separator in use; '' if unknown, or if the format has none.
        texts: its columns that may hold the questions, the most likely first; none until it has been read.
        columns: all its columns.
        sure: whether the first of `texts` is certainly the right one.
        row: the beginnings of the values of one row, in the order of `columns`.
        work: what is being done; None: nothing.
        error: why the file cannot be used; '' if it can.
        opened: the name of the opened file; '' before the first.
    """

    limit: int
    endings: list[str]
    compressed: list[str]
    file: str
    separator: str
    separated_by: str
    texts: list[TextColumn]
    columns: list[str]
    sure: bool
    row: list[str]
    work: Work | None
    error: str
    opened: str


@dataclass(frozen=True)
class _Sent:
    """A file that was sent, and what its columns are."""

    path: Path
    separator: str = ""
    separated_by: str = ""
    texts: tuple[TextColumn, ...] = ()
    columns: tuple[str, ...] = ()
    sure: bool = False
    row: tuple[str, ...] = ()


def safe_name(name: str) -> str:
    r"""The name under which a file is kept: letters, digits and `. - _` alone, without folders and leading dots.

    Raises:
        UserError: files with its ending are not read.

    >>> safe_name("../../etc/Tickets (März).csv"), safe_name("C:\\tickets.CSV.gz")
    ('Tickets _März_.csv', 'tickets.CSV.gz')
    """
    last = re.split(r"[/\\]", name)[-1]
    clean = _UNSAFE.sub("_", last).strip(" .-")
    suffixes = [suffix.lower() for suffix in Path(clean).suffixes[-2:]]
    packed = bool(suffixes) and suffixes[-1] in (*OPENERS, ZIP)
    ending = "".join(suffixes[:-1] if packed else suffixes[-1:])
    if not (ending in FORMATS or (packed and suffixes[-1] == ZIP)):
        raise UserError(f"{last or 'the file'}: unknown kind of file; {nearest(ending, FORMATS)}")
    tail = "".join(Path(clean).suffixes[-2 if packed and ending in FORMATS else -1 :])
    return clean[: -len(tail)][: LONGEST - len(tail)] + tail


class Uploads:
    r"""The files that were sent to a service, and the session of the opened one.

    >>> import tempfile
    >>> from qpairs.serving.app import create_app
    >>> uploads = Uploads(model, Path(tempfile.mkdtemp(), "uploads"), create_app, limit=1000)
    >>> uploads.put("tickets.csv", [b"title\nHow do I pay?\n", b"Where is my order?\n"]).file
    'tickets.csv'
    >>> uploads.wait().texts[0].name
    'title'
    """

    def __init__(
        self, model: Model, folder: Path, make: Callable[..., FastAPI], *, limit: int, annotator: str = ""
    ) -> None:
        """Stores what a session needs.

        Args:
            model: as in `open_session`.
            folder: of the files, created with the first one, and private to the user of the service.
            make: `create_app`, called with a model, an index, and the keywords `session` and `uploads`.
            limit: bytes of a file.
            annotator: name stored with the answers.
        """
        self._model = model
        self._folder = folder
        self._make = make
        self._limit = limit
        self._annotator = annotator
        self._lock = threading.Lock()
        self._sent: _Sent | None = None
        self._work: Work | None = None
        self._error = ""
        self._opened: tuple[str, Path] | None = None  # the file that is worked on, and the folder of its session
        self._worker = threading.Thread()
        self.app = CurrentApp(make(model, uploads=self))

    def state(self) -> UploadState:
        """The progress of the last file."""
        work, error = self._work, self._error  # before the file: where no work is left, all of it has been read
        sent = self._sent or _Sent(Path(""))
        return UploadState(
            limit=self._limit,
            endings=list(FORMATS),
            compressed=[*OPENERS, ZIP],
            file=sent.path.name,
            separator=sent.separator,
            separated_by=sent.separated_by,
            texts=list(sent.texts),
            columns=list(sent.columns),
            sure=sent.sure,
            row=list(sent.row),
            work=work,
            error=error,
            opened=self._opened[0] if self._opened else "",
        )

    def wait(self) -> UploadState:
        """The state when a file has been read."""
        self._worker.join()
        return self.state()

    def put(self, name: str, parts: Iterable[bytes]) -> UploadState:
        """Stores a file, completely or not at all, and starts to read its columns.

        Args:
            name: of the file, as it was sent.
            parts: its content.

        Raises:
            UserError: files with this ending are not read, or it cannot be written.
            LookupError: another file is being sent or opened.
        """
        name = safe_name(name)
        self._claim("receiving")
        try:
            path = self._kept(name, parts)
        except BaseException:
            self._work = None
            raise
        self._sent = _Sent(path)
        self._begin(functools.partial(self._read, self._sent))
        return self.state()

    def read(self, separator: str) -> UploadState:
        """Starts to read the columns of the last file again.

        Args:
            separator: of its fields, as in `open_file`; '' detects it.

        Raises:
            LookupError: there is no file, or another one is being sent or opened.
        """
        path = self._last().path
        self._claim("reading")
        self._sent = _Sent(path, separator)
        self._begin(functools.partial(self._read, self._sent))
        return self.state()

    def open(
        self, text_column: str, id_column: str = "", *, separator: str = "", skip_bad_rows: bool = False
    ) -> UploadState:
        """Starts to embed and index the last file; its session replaces the previous one.

        Args:
            text_column: the column of the questions, as in `QuestionFile`, and so
            id_column: that of their ids,
            separator: of the fields, and
            skip_bad_rows: whether rows that cannot be used are left out.

        Raises:
            LookupError: there is no file, or another one is being sent or opened.
        """
        path = self._last().path
        self._claim("opening")
        questions = QuestionFile(path, text_column, id_column, skip_bad_rows, separator)
        how = [self._model.fingerprint, text_column, id_column, str(skip_bad_rows), *filter(None, [separator])]
        folder = questions.path.parent / f"session-{_digest(*how)}"
        if self._opened and self._opened[1] == folder:  # which goes on as it is
            self._work = None
            return self.state()
        self._begin(functools.partial(self._serve, questions, folder))
        return self.state()

    def _last(self) -> _Sent:
        if not self._sent:
            raise LookupError("there is no file to open; send one first")
        return self._sent

    def _claim(self, stage: str) -> None:
        with self._lock:
            if self._work:
                raise LookupError("another file is being sent or opened; wait until that is done")
            self._error, self._work = "", Work(stage, 0, 0)

    def _kept(self, name: str, parts: Iterable[bytes]) -> Path:
        digest = hashlib.sha256(name.encode())
        with writing(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        arrived = self._folder / name
        with atomic_file(arrived) as fresh:
            fresh.touch(mode=0o600)
            with fresh.open("wb") as file:
                for part in parts:
                    digest.update(part)
                    file.write(part)
        place = self._folder / digest.hexdigest()[:16]
        with writing(place):
            place.mkdir(mode=0o700, exist_ok=True)
            return arrived.replace(place / name)

    def _begin(self, work: Callable[[], Callable[[], None] | None]) -> None:
        self._worker = threading.Thread(target=self._do, args=(work,), name="upload", daemon=True)
        self._worker.start()

    def _do(self, work: Callable[[], Callable[[], None] | None]) -> None:
        """Runs work that others wait for, and then the function it returns, which nobody waits for."""
        rest = None
        try:
            rest = work()
        except UserError as error:
            log.warning("%s", error)
            self._error = _for_the_sender(str(error), self._sent)
        except Exception:
            log.exception("a file that was sent")
            self._error = FAILED
        finally:
            self._work = None
        if rest:
            rest()

    def _report(self, progress: Progress) -> None:
        self._work = Work(progress.stage, progress.done, progress.total)

    def _read(self, sent: _Sent) -> None:
        self._work = Work("reading", 0, 0)
        check_unpacked(sent.path, UNPACKED * self._limit)
        reader = open_file(sent.path, sent.separator)
        by = reader.separator if isinstance(reader, Delimited) else ""
        try:
            found = text_columns(sent.path, sent.separator)
        except UserError:
            self._sent = replace(sent, separated_by=by)  # another separator may mend it
            raise
        row = tuple("" if value is None else str(value)[:SHOWN] for value in found.row.values())
        texts, columns = tuple(found.columns), tuple(reader.columns)
        self._sent = replace(sent, separated_by=by, texts=texts, columns=columns, sure=found.sure, row=row)

    def _serve(self, questions: QuestionFile, folder: Path) -> Callable[[], None]:
        """Opens a session; returns a function that holds it until it is replaced: locks belong to a thread."""
        over, worker = threading.Event(), threading.current_thread()

        def end() -> None:
            over.set()
            worker.join(CLOSING)

        with ExitStack() as held:
            opening = open_session(
                self._model, questions, folder, annotator=self._annotator, serve=True, on_progress=self._report
            )
            session = held.enter_context(opening)
            app = self._make(session.judge, session.index, session=session, uploads=self)
            self.app.replace(app, end)
            self._opened = questions.path.name, folder
            kept = held.pop_all()

        def hold() -> None:
            with kept:
                over.wait()
                app.state.start_page.wait()

        return hold


def with_uploads(
    model: Model, folder: Path, make: Callable[..., FastAPI], *, limit: int, annotator: str = ""
) -> CurrentApp:
    """An application without questions, which takes files of them: see `Uploads`.

    >>> from qpairs.serving.app import create_app
    >>> type(with_uploads(model, Path("uploads"), create_app, limit=1000)).__name__
    'CurrentApp'
    """
    return Uploads(model, folder, make, limit=limit, annotator=annotator).app


def check_unpacked(path: Path, most: int) -> None:
    """Raises UserError if a compressed file has more bytes than `most` when unpacked; memory use is constant."""
    if not is_compressed(path):
        return
    size = 0
    try:
        with open_uncompressed(path) as file:
            while part := file.read(BLOCK):
                size += len(part)
                if size > most:
                    raise UserError(f"{path}: has more than {most:,} bytes when it is unpacked; send it in parts")
    except faults() as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _for_the_sender(text: str, sent: _Sent | None) -> str:
    """A message with the sender's name for a file, and the page's option for its rows."""
    text = text.replace(SKIP_THEM, SKIP_HERE)
    return text.replace(str(sent.path), sent.path.name) if sent else text
