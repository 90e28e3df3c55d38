"""The verdict of a model, fitted to a corpus anew as labels come, and what is then known of it."""

from __future__ import annotations

from dataclasses import dataclass

from qpairs.core.exceptions import UserError
from qpairs.data.identity import distinct_texts
from qpairs.data.labels import read_labels
from qpairs.evaluation.calibrate_corpus import MORE, CorpusFit, CountedCorpus, fit_corpus
from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model
from qpairs.models.two_stages import first_stage
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import score_counts
from qpairs.serving.labelling import Labelling


@dataclass(frozen=True)
class Known:
    """What is known of the duplicates of a corpus, by a model and the labels so far.

    Attributes:
        pairs: called duplicates.
        threshold: the least similarity of duplicates.
        precision, precision_interval: expected among all pairs that are called duplicates; 95 %.
        recall, recall_interval: expected of all pairs of duplicates; 95 %.
        basis: what this rests on, in words.
        labels: that it rests on.
        more: labels whose effect is foretold.
        width, width_with_more: of the interval of the precision, now and with so many more labels.
    """

    pairs: float
    threshold: float
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    basis: str
    labels: int
    more: int
    width: float
    width_with_more: float


def known(fit: CorpusFit) -> Known:
    """What a fit says of its corpus."""
    after, more = fit.after, fit.with_more
    return Known(
        pairs=after.pairs,
        threshold=after.threshold,
        precision=after.precision,
        precision_interval=after.precision_interval,
        recall=after.recall,
        recall_interval=after.recall_interval,
        basis=fit.setting.basis,
        labels=sum(fit.used.values()),
        more=MORE,
        width=after.precision_interval[1] - after.precision_interval[0],
        width_with_more=more.precision_interval[1] - more.precision_interval[0],
    )


def count_index(model: Model, index: Index) -> CountedCorpus:
    """An index as a corpus to fit a verdict to: its questions, and the scores of their pairs as they were counted.

    Args:
        model: that made it.
        index: with the vectors of one tower.

    Raises:
        UserError: the scores of its pairs are not known, or its vectors are shortened.
    """
    encoder = first_stage(model)
    if index.manifest.dimension != encoder.dimension:
        raise UserError(
            f"{index.folder}: its vectors are shortened; fit their verdict with qpairs calibrate --corpus, and serve "
            "the model that it writes"
        )
    texts = list(index.questions.texts())
    texts = [texts[row] for row in distinct_texts(texts)[1]]
    counts = score_counts(index, max(2, len(texts)))
    if counts is None:
        raise UserError(f"{index.folder}: of an older version, without the scores of its pairs; build it anew")
    return CountedCorpus(model, texts, {encoder.dimension: counts})


class Refit:
    """A verdict that is fitted to the labels in a file, whenever these are others than before.

    Attributes:
        fit: the verdict as the labels told last, or the corpus alone where there were none.
    """

    def __init__(self, counted: CountedCorpus, labelling: Labelling) -> None:
        """Fits to the corpus alone.

        Raises:
            UserError: the verdict of the model cannot be fitted.
        """
        self._counted, self._labelling = counted, labelling
        self._fitted_to = b""  # the rows of the file of labels
        self.fit = fit_corpus(counted)

    def refit(self) -> bool:
        """Fits to all labels where they may be others than before, and judges pairs by them; returns whether it did.

        Raises:
            UserError: the labels cannot be read, or none can be used.
        """
        rows = self._labelling.path.read_bytes().partition(b"\n")[2].strip()
        if rows == self._fitted_to:
            return False
        self.fit = fit_corpus(self._counted, read_labels(self._labelling.path) if rows else None)
        self._fitted_to = rows
        self._labelling.judge_by(self.fit.setting)
        return True
