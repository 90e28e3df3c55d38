"""From a file of questions to its duplicates and a calibrated model with a few answers, as `qpairs start` does.

A session is a folder. Every answer is on the disk before the next pair is asked for, so that it may be stopped at any
time; opened again, it resumes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas

from qpairs.core.exceptions import UserError
from qpairs.core.files import exclusive_lock, refuse_file
from qpairs.core.progress import OnProgress, ignore
from qpairs.core.shell import option_words
from qpairs.data.corpus import Corpus, read_corpus
from qpairs.data.identity import canonical
from qpairs.data.question_file import QuestionFile
from qpairs.evaluation.calibrate_corpus import FITTED_BEFORE, CorpusFit, CountedCorpus, count_corpus, enough_questions
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name
from qpairs.retrieval.corpus import DedupeResult, dedupe_corpus
from qpairs.retrieval.dedupe import stored
from qpairs.retrieval.embeddings import Embeddings
from qpairs.retrieval.index import Index, open_index
from qpairs.retrieval.index_file import embeddings_folder, index_file, index_folder
from qpairs.retrieval.second_look import encoder_of
from qpairs.serving.journal import journalled
from qpairs.serving.label_file import LabelFile
from qpairs.serving.labelling import Answer, Labelling, LabelRequest, Pair
from qpairs.serving.refit import Known, Refit, known

log = logging.getLogger(__name__)

STEP = 10  # answers after which the verdict is fitted anew
EXAMPLES = 6  # pairs called duplicates that are shown
ENOUGH, OF_EACH = 200, 50  # labels from which on training may pay, and of each kind among them
WRONG = 0.5  # expected precision below which the result is warned of


@dataclass(frozen=True)
class Folder:
    """The folder of a session, and the file of its labels if that is elsewhere."""

    path: Path
    other_labels: Path | None = None

    @property
    def labels(self) -> Path:
        """The answers."""
        return self.other_labels or self.path / "labels.csv"

    def label_file(self, annotator: str = "") -> LabelFile:
        """The answers, as one annotator adds to them; made if need be."""
        remedy = "name another file with --labels" if self.other_labels else "mend it, or begin in another folder"
        return LabelFile(self.labels, annotator, remedy)

    @property
    def model(self) -> Path:
        """The calibrated model."""
        return self.path / "model"

    @property
    def duplicates(self) -> Path:
        """Pairs, clusters, and the file without its duplicates."""
        return self.path / "duplicates"


class Session:
    """A file of questions that is being labelled; `open_session` opens one.

    Attributes:
        folder: where everything is kept.
        questions: the file.
        corpus: its content.
        index: of the questions; changes to it are journalled if the session was opened for serving.
        labelling: has the pairs to label.
        refitting: fits the verdict to the labels.
        state: the answers so far of the annotator who answered last, and the next pair.
    """

    def __init__(
        self,
        folder: Folder,
        questions: QuestionFile,
        corpus: Corpus,
        embeddings: Embeddings,
        counted: CountedCorpus,
        index: Index,
        labelling: Labelling,
    ) -> None:
        self.folder = folder
        self.corpus = corpus
        self.index = index
        self.questions = questions
        self.labelling = labelling
        self.state = labelling.state()
        self._embeddings = embeddings
        self._counted = counted
        self.refitting = Refit(lambda: counted, labelling)
        self.refit()

    @property
    def model(self) -> Model:
        """The model that was given."""
        return self._counted.model

    @property
    def fit(self) -> CorpusFit:
        """The verdict of the last fit: it is refitted after every `STEP` answers."""
        return self.refitting.fit

    @property
    def judge(self) -> Model:
        """The model that a service uses: fitted to the answers, or unchanged if there are none."""
        return self.fit.model if self.fit.used else self.model

    @property
    def known(self) -> Known:
        """What is known about the duplicates, from `fit`."""
        return known(self.fit)

    @property
    def answers(self) -> int:
        """Answers so far, without skips."""
        return self.state.duplicates + self.state.different

    def look(self, annotator: str | None = None) -> None:
        """Sets the state to that of an annotator; without a name, to that of the session."""
        self.state = self.labelling.state(annotator=annotator)

    def answer(self, pair: Pair, answer: Answer, annotator: str | None = None) -> bool:
        """Stores an answer; returns whether the verdict was refitted.

        Raises:
            LookupError: the pair is not waiting for an answer.
            UserError: the labels cannot be read or written.
        """
        request = LabelRequest(pair.question1, pair.question2, answer, annotator=annotator)
        self.state = self.labelling.answer(request)
        return self.answers % STEP == 0 and self.refit()

    def undo(self, annotator: str | None = None) -> None:
        """Undoes the last answer.

        Raises:
            LookupError: there is none.
        """
        self.state = self.labelling.undo(annotator=annotator)

    def refit(self) -> bool:
        """Fits the verdict to all answers if they have changed; returns whether it was fitted."""
        try:
            fitted = self.refitting.refit()
        except UserError as error:  # labels that were drawn in another way than these answers
            log.warning("%s; the earlier verdict is kept, %s", error, self.fit.setting.basis)
            return False
        if fitted:
            self.look(self.state.annotator)
        return fitted

    def duplicates(self, on_progress: OnProgress = ignore) -> DedupeResult:
        """The duplicates by the current verdict; nothing is written."""
        return self._dedupe(self.fit.model, on_progress)

    def _dedupe(self, model: Model, on_progress: OnProgress) -> DedupeResult:
        return dedupe_corpus(model, self.corpus, embeddings=self._embeddings, on_progress=on_progress)

    def finish(self, on_progress: OnProgress = ignore) -> DedupeResult:
        """Fits the verdict to all answers, and writes the calibrated model and the duplicates by it.

        Raises:
            UserError: a folder cannot be written, or there are far too many pairs.
        """
        self.refit()
        return self.write(self.fit, on_progress)

    def write(self, fit: CorpusFit, on_progress: OnProgress = ignore) -> DedupeResult:
        """Writes the calibrated model of a fit, and the duplicates by it; answers given meanwhile are not included.

        Raises:
            UserError: a folder cannot be written, or there are far too many pairs.
        """
        fit.model.save(self.folder.model, overwrite=True)
        found = self._dedupe(as_model(self.folder.model), on_progress)
        found.write(self.folder.duplicates)
        return found

    @property
    def training_may_pay(self) -> bool:
        """Whether there are enough labels of each kind to learn from."""
        state = self.state
        return self.answers >= ENOUGH and min(state.duplicates, state.different) >= OF_EACH

    @property
    def mostly_wrong(self) -> bool:
        """Whether most of the pairs called duplicates are expected to be wrong."""
        return self.fit.after.pairs >= 1 and self.fit.after.precision < WRONG

    def commands(self, shared: Sequence[str] = ()) -> Sequence[Sequence[str]]:
        """The single commands that do the same, as the words of each.

        Args:
            shared: further words for commands that read the file, such as --separator, or --import and a module.
        """
        questions, folder = self.questions, self.folder
        model, file = shown_name(self._counted.model), str(questions.path)
        texts, both = [*questions.words(ids=False), *shared], [*questions.words(), *shared]
        vectors, index = str(embeddings_folder(folder.path)), str(index_folder(folder.path))
        labels, named = str(folder.labels), option_words({"--annotator": self.labelling.annotator})
        again = ["--overwrite"]  # all of it is there already
        given = ["--labels", labels] if self.answers or self.fit.used else []
        lines = [
            ["embed", model, file, *both, "--output", vectors],
            ["index", vectors, "--output", index, *again],
            ["serve", model, "--index", index, "--labels", labels, *named],
            ["calibrate", model, "--corpus", file, *texts, *given, "--output", str(folder.model), *again],
            self.dedupe_command(shared, "--output", str(folder.duplicates), *again)[1:],
        ]
        if self.training_may_pay:
            encoder = self._counted.encoder.config.encoder
            lines.append(["train", "--data", labels, "--encoder", encoder, "--output", str(folder.path / "trained")])
        return [["qpairs", *line] for line in lines]

    def dedupe_command(self, shared: Sequence[str], *ends: str) -> Sequence[str]:
        """The words of the single command that finds the duplicates with the calibrated model.

        Args:
            shared: as in `commands`.
            ends: its last words: what to do with them.
        """
        folder, vectors = self.folder, str(embeddings_folder(self.folder.path))
        read = [str(self.questions.path), *self.questions.words(), *shared]
        return ["qpairs", "dedupe", str(folder.model), *read, "--embeddings", vectors, *ends]


@contextmanager
def open_session(
    model: Model | str | Path,
    questions: QuestionFile,
    folder: Path,
    *,
    labels: Path | None = None,
    annotator: str = "",
    seed: int = 0,
    serve: bool = False,
    on_progress: OnProgress = ignore,
) -> Iterator[Session]:
    """Opens the session in a folder, new or resumed, and locks it against other processes.

    If the file or the model differs from before, the questions are embedded again, and the answers stay.

    Args:
        model: a ready model, or another with one tower.
        questions: the file.
        folder: gets embeddings, index, labels.csv, and in the end the folders model and duplicates.
        labels: file of the answers, if it is not labels.csv in the folder.
        annotator: name stored with the answers.
        seed: of the order of the pairs.
        serve: whether the index may be changed meanwhile; then an index of other questions is not replaced.
        on_progress: the stages of `embed` and `build_index`, and estimating.

    Raises:
        UserError: the model, the file or the folder cannot be used.

    >>> questions = QuestionFile(Path("tickets.csv"), text_column="title")  # doctest: +SKIP
    >>> with open_session("minilm", questions, Path("tickets-qpairs")) as session:  # doctest: +SKIP
    ...     while session.answers < 60 and (pair := session.state.pair):
    ...         session.answer(pair, "yes" if ask(pair) else "no")
    ...     session.finish()
    """
    refuse_file(folder)
    corpus = read_corpus(questions.path, **questions.options)
    enough_questions(corpus)  # too few are refused before any work
    model = as_model(model)
    encoder = encoder_of(model)
    with exclusive_lock(folder):
        place = Folder(folder, labels)
        _check_answers(place, corpus)
        embeddings = index_file(model, questions, folder, renew=not serve, on_progress=on_progress)
        counted = count_corpus(model, corpus, encode=stored(embeddings, encoder), on_progress=on_progress)
        place_of_index = index_folder(folder)
        with journalled(place_of_index) if serve else nullcontext(open_index(place_of_index)) as index:
            labelling = Labelling.open(place.label_file(annotator), model, index, seed=seed)
            if encoder.verdict.densities and encoder.verdict.densities.labels:
                log.warning(FITTED_BEFORE, encoder.verdict.densities.labels)
            yield Session(place, questions, corpus, embeddings, counted, index, labelling)


def _check_answers(place: Folder, corpus: Corpus) -> None:
    """Raises UserError if there are answers, but none about two questions of the corpus."""
    file = place.labels
    if not file.exists():
        return
    labels = place.label_file().read()
    pairs = [{canonical(row.question1), canonical(row.question2)} for row in [*labels.labelled, *labels.others]]
    known = {canonical(text) for text in corpus.texts}
    if pairs and not any(pair <= known for pair in pairs):
        raise UserError(
            f"{file}: none of its {len(pairs):,} answers is about questions of {corpus.path}, as read now; read the "
            "same columns as before, or use another folder"
        )


def examples(found: DedupeResult, count: int) -> pandas.DataFrame:
    """Some of the pairs of duplicates, from the most to the least certain, at equal distances in that order.

    Args:
        found: the duplicates.
        count: rows, at most; the columns are those of `DedupeResult.pairs`.
    """
    ranked = found.pairs.sort_values(["probability", "similarity"], ascending=False, kind="stable")
    if len(ranked) <= count:
        return ranked
    return ranked.iloc[[round(row * (len(ranked) - 1) / (count - 1)) for row in range(count)]]
