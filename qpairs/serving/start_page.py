"""The page of `qpairs start`: a session as a browser sees it, with long work in its own thread."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qpairs.core.exceptions import UserError
from qpairs.core.progress import Progress
from qpairs.core.shell import shown_command
from qpairs.data.separators import separator_words
from qpairs.evaluation.calibrate_corpus import CorpusFit
from qpairs.evaluation.wording import differing_words
from qpairs.models.base import Model
from qpairs.models.ready import shown_name
from qpairs.retrieval.corpus import SUMMARY, DedupeResult
from qpairs.serving.labelling import Answer, Pair, State
from qpairs.serving.model_zip import zip_folder
from qpairs.serving.refit import Known
from qpairs.serving.start import EXAMPLES, STEP, WRONG, Session, examples

log = logging.getLogger(__name__)

FAILED = "this failed; see the log of the service"
MODEL_ZIP = "model.zip"


@dataclass(frozen=True)
class Example:
    """A pair that is now called duplicates; `differ` is the result of `differing_words`."""

    question1: str
    question2: str
    similarity: float
    probability: float
    differ: tuple[str, str] | None


@dataclass(frozen=True)
class Work:
    """The service's current work and its progress: `done` of `total`, or of an unknown number if that is 0."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """What was written last: counts, their basis, the folders, and the files that can be fetched.

    `mostly_wrong`: most of the pairs are expected not to be duplicates.
    """

    rows: int
    pairs: int
    clusters: int
    kept: int
    threshold: float
    basis: str | None
    mostly_wrong: bool
    model: str
    duplicates: str
    files: list[str]


@dataclass(frozen=True)
class StartState:
    """The state of a session.

    Attributes:
        file, folder, model: the source, the folder, and the model of the session.
        questions: rows of the file that are used.
        skipped: rows that are left out.
        step: answers after which the verdict is refitted.
        fitted: whether the last answer was one of these.
        known: what is known about the duplicates.
        mostly_wrong: whether most of the pairs called duplicates are expected to be wrong.
        state: the answers so far, and the next pair.
        examples: pairs that are called duplicates, from the most to the least certain.
        work: what is being done in the background; None: nothing.
        error: why the last work failed; '' if it did not.
        finished: what was written last; None: nothing yet.
        training_may_pay: whether there are enough labels to train on.
        commands: the single commands that do the same.
    """

    file: str
    folder: str
    model: str
    questions: int
    skipped: int
    step: int
    fitted: bool
    known: Known
    mostly_wrong: bool
    state: State
    examples: list[Example]
    work: Work | None
    error: str
    finished: Finished | None
    training_may_pay: bool
    commands: list[str]


class StartPage:
    """A session for the threads of a service."""

    def __init__(self, session: Session, judge_by: Callable[[Model], None]) -> None:
        """Starts to look for examples.

        Args:
            session: the session.
            judge_by: lets the service use another model; called whenever the verdict was refitted.
        """
        self.session = session
        self._judged = session.fit  # what the service judges by
        self._judge_by = judge_by
        self._lock = threading.Lock()
        self._examples: list[Example] = []
        self._error = ""
        self._work: Work | None = None
        self._worker = threading.Thread()
        self._begin(self._find_examples)

    def state(self, annotator: str | None = None) -> StartState:
        """The state, with the answers of an annotator.

        Raises:
            UserError: the labels cannot be read.
        """
        with self._lock:
            self.session.look(annotator)
            return self._state()

    def answer(self, pair: Pair, answer: Answer, annotator: str | None = None) -> StartState:
        """Stores an answer; after every `STEP` answers the service uses a verdict fitted to them.

        Raises:
            LookupError: the pair is not waiting for an answer.
            UserError: the labels cannot be read or written.
            queue.Full: the answer is stored, but the service is too busy to use it now.
        """
        with self._lock:
            fitted = self.session.answer(pair, answer, annotator)
            self._judge()
            return self._state(fitted)

    def undo(self, annotator: str | None = None) -> StartState:
        """Undoes the last answer.

        Raises:
            LookupError: there is none.
        """
        with self._lock:
            self.session.undo(annotator)
            return self._state()

    def finish(self, annotator: str | None = None) -> StartState:
        """Starts to write the calibrated model and the duplicates; `work` then has the progress.

        Raises:
            LookupError: it is already running. queue.Full: the service is too busy to use all answers now; nothing was
                started.
        """
        with self._lock:
            if self._worker.is_alive() and self._work:
                raise LookupError("this is already running; wait until it is done")
            self.session.refit()
            self._judge()
            fit = self.session.fit  # answers that come while it is written belong to the next one
            self._begin(lambda: self._finish(fit))
            self.session.look(annotator)
            return self._state()

    def apply(self) -> CorpusFit:
        """Fits the verdict to all labels, and lets the service use it.

        Raises:
            UserError: the labels cannot be read, or none can be used.
            queue.Full: the service is too busy to use them now.
        """
        with self._lock:
            self.session.refitting.refit()
            self._judge(always=True)
            return self._judged

    def _judge(self, *, always: bool = False) -> None:
        """Lets the service use the verdict, if it does not yet."""
        fit = self.session.fit
        if always or fit is not self._judged:
            self._judge_by(fit.model)
            self._judged = fit

    def file(self, name: str) -> Path:
        """One of the files that were written.

        Raises:
            LookupError: there is no such file.
        """
        folder = self.session.folder
        known = {path.name: path for path in (folder.labels, *_written(folder.duplicates))}
        if name not in known:
            raise LookupError(f"there is no file {name!r}")
        return known[name]

    def model_zip(self) -> Iterator[bytes]:
        """The parts of a .zip of the folder of the model that was written.

        Raises:
            LookupError: it is being written, or was not written yet.
        """
        if self._work:
            raise LookupError("the service is busy; wait until it is done")
        try:
            return zip_folder(self.session.folder.model)
        except OSError:
            raise LookupError("there is no model yet; finish first") from None

    def wait(self) -> None:
        """Waits for the work in the background."""
        self._worker.join()

    def _begin(self, work: Callable[[], None]) -> None:
        self._error, self._work = "", Work("starting", 0, 0)
        self._worker = threading.Thread(target=self._do, args=(work,), name="start", daemon=True)
        self._worker.start()

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except UserError as error:
            log.warning("%s", error)
            self._error = str(error)
        except Exception:
            log.exception("the page of start")
            self._error = FAILED
        finally:
            self._work = None

    def _report(self, progress: Progress) -> None:
        self._work = Work(progress.stage, progress.done, progress.total)

    def _find_examples(self) -> None:
        try:
            self._examples = _examples(self.session.duplicates(self._report))
        except UserError as error:  # far too many pairs, as far as is known without labels
            raise UserError(f"no examples yet: {error}") from None

    def _finish(self, fit: CorpusFit) -> None:
        self._examples = _examples(self.session.write(fit, self._report))

    def _state(self, fitted: bool = False) -> StartState:
        session, folder = self.session, self.session.folder
        named = [] if session.questions.separator else separator_words()
        return StartState(
            file=str(session.questions.path),
            folder=str(folder.path),
            model=shown_name(session.model),
            questions=len(session.corpus.texts),
            skipped=sum(session.corpus.skipped.values()),
            step=STEP,
            fitted=fitted,
            known=session.known,
            mostly_wrong=session.mostly_wrong,
            state=session.state,
            examples=self._examples,
            work=self._work,
            error=self._error,
            finished=None if self._work else _finished(session),
            training_may_pay=session.training_may_pay,
            commands=[shown_command(*words) for words in session.commands(named)],
        )


def _examples(found: DedupeResult) -> list[Example]:
    some = examples(found, EXAMPLES)
    columns = [some[name].tolist() for name in ("question1", "question2", "similarity", "probability")]
    differ = map(differing_words, columns[0], columns[1])
    return [Example(*values) for values in zip(*columns, differ, strict=True)]


def _written(folder: Path) -> list[Path]:
    """The tables in the folder of duplicates, the most useful first."""
    return [path for kind in ("kept", "pairs", "clusters") for path in sorted(folder.glob(f"{kind}.*"))]


def _finished(session: Session) -> Finished | None:
    folder = session.folder
    try:
        summary = json.loads((folder.duplicates / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    expected = summary["expected"]
    return Finished(
        **{name: summary[name] for name in ("rows", "pairs", "clusters", "kept", "threshold", "basis")},
        mostly_wrong=bool(expected) and expected["precision"] < WRONG,
        model=str(folder.model),
        duplicates=str(folder.duplicates),
        files=[*(path.name for path in (*_written(folder.duplicates), folder.labels)), MODEL_ZIP],
    )
