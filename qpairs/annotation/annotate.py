"""A large language model as annotator: it labels pairs, and its answers become a file of labels."""

from __future__ import annotations

import logging
import math
import reprlib
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from qpairs.annotation.answers import Answer, Journal, open_journal
from qpairs.annotation.chat import Chat, Refused, Unavailable
from qpairs.annotation.endpoint import Endpoint
from qpairs.annotation.prompt import fingerprint, messages_for, read_answer
from qpairs.core.exceptions import UserError
from qpairs.core.progress import Meter, OnProgress, ignore
from qpairs.data.identity import pair_key
from qpairs.data.labels import ADJUDICATED, annotator_name
from qpairs.serving.label_file import LabelFile, Row
from qpairs.serving.label_pairs import Candidate

log = logging.getLogger(__name__)

PATIENCE = 5  # pairs in succession that fail or are refused, until the run ends
UNREADABLE = "the answer could not be read"


@dataclass(frozen=True)
class Annotator:
    """A language model with a name and a guideline.

    Attributes:
        endpoint: its service.
        name: of the annotator in the file of labels; '' for the name of the model.
        guideline: what decides doubtful cases.

    >>> Annotator(Endpoint("http://localhost:8000/v1/chat/completions", "llama3")).called
    'llama3'
    """

    endpoint: Endpoint
    name: str = ""
    guideline: str = ""

    @property
    def called(self) -> str:
        """The name in the file of labels.

        Raises:
            UserError: it is too long, cannot be printed, or is `adjudicated`.
        """
        name = annotator_name(self.name or self.endpoint.model)
        if name == ADJUDICATED:
            raise UserError(f"annotator: the name {name!r} is for settling disagreements; give the model another name")
        return name


@dataclass(frozen=True)
class Annotation:
    """The result of labelling with a language model.

    Attributes:
        yes, no, unsure, unanswered: pairs by answer, of this run and of earlier ones.
        failed: pairs of this run that failed; the next run asks them again.
        asked: pairs of this run.
        tokens_in, tokens_out: read and written, in all runs.
        uncounted: answers for which the service gave no token counts.
        seconds: of this run.
    """

    yes: int
    no: int
    unsure: int
    unanswered: int
    failed: int
    asked: int
    tokens_in: int
    tokens_out: int
    uncounted: int
    seconds: float

    def cost(self, price_in: float, price_out: float) -> float:
        """Price of all tokens, from the prices of a million tokens read and a million written."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


def annotate(
    pairs: Sequence[Candidate],
    annotator: Annotator,
    labels: str | Path,
    *,
    concurrency: int = 4,
    on_progress: OnProgress = ignore,
) -> Annotation:
    """Asks a language model about pairs, and writes its answers with its name to a file of labels.

    Each answer is in the journal `NAME.answers` next to the file before the next pair is asked; a later run asks what
    is missing. Answers `yes` and `no` become labels; a pair without an answer, or with `unsure`, is kept only in the
    journal. If an answer cannot be parsed, the pair is asked once more. Labels of other annotators in the file stay.

    Args:
        pairs: such as the first n of `pairs_to_label(index, model)["stratified"].values()`, whose labels can be used
            for calibration. A pair with a probability of being drawn is taken as `stratified`.
        annotator: the model, its name and its guideline.
        labels: CSV file of the labels.
        concurrency: number of concurrent requests.
        on_progress: counts the pairs; the note has the tokens.

    Raises:
        UserError: the address, the key or the model is wrong; the service fails again and again; or a file cannot be
            used. Answers so far are kept.

    >>> from qpairs.serving.label_pairs import pairs_to_label
    >>> endpoint = open_endpoint("http://localhost:11434", model="llama3")  # doctest: +SKIP
    >>> pairs = list(pairs_to_label(index, model)["stratified"].values())[:500]  # doctest: +SKIP
    >>> annotate(pairs, Annotator(endpoint), "llm-labels.csv").yes  # doctest: +SKIP
    61
    """
    if not 1 <= concurrency <= 256:
        raise UserError(f"concurrency: {concurrency} is not from 1 to 256")
    start, name, path = time.monotonic(), annotator.called, Path(labels)
    file = LabelFile(path, annotator=name)
    endpoint = annotator.endpoint
    header = {
        "annotator": name,
        "model": endpoint.model,
        "prompt": fingerprint(endpoint.model, annotator.guideline),
    }
    with open_journal(path, name, header) as journal:
        known = {pair_key(row) for row in file.read().labelled}
        missing = [pair for pair in pairs if (key := pair_key(pair)) not in journal and key not in known]
        run = _Run(annotator, journal)
        try:
            run.ask_all(missing, len(pairs), concurrency, on_progress)
        finally:
            _write_labels(file, journal.answers.values())
        return _summary(journal.answers.values(), run, time.monotonic() - start)


class _Run:
    """One run over pairs, with the counts that decide whether to continue."""

    def __init__(self, annotator: Annotator, journal: Journal) -> None:
        self.asked = self.failed = 0
        self._annotator, self._journal = annotator, journal
        self._chat = Chat(annotator.endpoint)
        self._lock = threading.Lock()
        self._answered, self._in_succession = False, 0
        self._tokens = sum((a.tokens_in or 0) + (a.tokens_out or 0) for a in journal.answers.values())

    def ask_all(self, pairs: Sequence[Candidate], total: int, concurrency: int, on_progress: OnProgress) -> None:
        """Asks about all pairs. Interrupted, it waits for the requests in flight, and keeps their answers."""
        meter = Meter(on_progress)
        meter.begin("asking", total, total - len(pairs))
        with ThreadPoolExecutor(concurrency) as pool:
            futures = [pool.submit(self._ask, pair) for pair in pairs]
            try:
                for future in as_completed(futures):
                    future.result()
                    meter.advance(note=f"{self._tokens:,} tokens")
            except BaseException:
                self._chat.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _ask(self, pair: Candidate) -> None:
        """Asks about a pair, and stores the answer."""
        try:
            answer = self._answer(pair)
        except Unavailable as problem:
            self._count(str(problem), failed=1)
            return
        self._journal.add(answer)
        self._count(answer.why if answer.why != UNREADABLE else "", answer)

    def _count(self, problem: str, answer: Answer | None = None, failed: int = 0) -> None:
        """Counts an answer or a failure; ends the run after several failures in a row."""
        with self._lock:
            self.failed += failed
            if answer:
                self.asked += 1
                self._answered = self._answered or not problem
                self._tokens += (answer.tokens_in or 0) + (answer.tokens_out or 0)
            self._in_succession = self._in_succession + 1 if problem else 0
            if self._in_succession >= PATIENCE and not self._chat.stop.is_set():
                raise UserError(
                    f"{self._annotator.endpoint.url}: {PATIENCE} pairs in a row failed ({problem}); the answers so "
                    "far are kept, and the same command resumes from them"
                )

    def _answer(self, pair: Candidate) -> Answer:
        """The answer to a pair; if it cannot be parsed, the pair is asked once more.

        Raises:
            Unavailable: every attempt failed; or the service has given no answer that can be read in this run, and
                refuses this pair, too, or says something else.
        """
        start, why = time.monotonic(), UNREADABLE
        said, counts = None, list[tuple[int | None, int | None]]()
        for again in (False, True):
            try:
                reply = self._chat.ask(messages_for(pair[:2], self._annotator.guideline, again=again))
            except Refused as refusal:
                if not self._answered:
                    raise Unavailable(str(refusal)) from None
                why = str(refusal)
                break
            counts.append((reply.tokens_in, reply.tokens_out))
            if said := read_answer(reply.text):
                break
        if not (said or counts == [] or self._answered):
            raise Unavailable(f"{UNREADABLE}: {reprlib.repr(reply.text)}")
        read, written = (_total(side) for side in zip(*counts, strict=True)) if counts else (None, None)
        seconds = round(time.monotonic() - start, 3)
        probability = None if math.isnan(pair.probability) else pair.probability
        return Answer(*pair[:2], said or "", probability, "" if said else why, read, written, seconds)


def _total(counts: Sequence[int | None]) -> int | None:
    """The sum; None if a count is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _write_labels(file: LabelFile, answers: Iterable[Answer]) -> None:
    """Writes the answers yes and no as labels of the annotator; other labels in the file stay."""
    with file.held():
        labels = file.read()
        rows = {pair_key(row): row for row in labels.labelled}
        for answer in answers:
            if answer.answer in ("yes", "no"):
                pair = answer.question1, answer.question2
                way, probability = ("stratified", answer.probability) if answer.probability else ("", math.nan)
                rows[pair_key(pair)] = Row(*pair, int(answer.answer == "yes"), way, probability)
        file.write_labels(labels, list(rows.values()))


def _summary(answers: Iterable[Answer], run: _Run, seconds: float) -> Annotation:
    kept = list(answers)
    said = [answer.answer for answer in kept]
    return Annotation(
        yes=said.count("yes"),
        no=said.count("no"),
        unsure=said.count("unsure"),
        unanswered=said.count(""),
        failed=run.failed,
        asked=run.asked,
        tokens_in=sum(answer.tokens_in or 0 for answer in kept),
        tokens_out=sum(answer.tokens_out or 0 for answer in kept),
        uncounted=sum(answer.tokens_in is None for answer in kept),
        seconds=seconds,
    )
