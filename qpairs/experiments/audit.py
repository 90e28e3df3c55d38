"""Which labels are probably wrong: those that contradict the graph, and those that cross-validated models dispute."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.config import Config, config_from, to_dict
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs, load_pairs, need_both_labels
from qpairs.data.parts import Parts
from qpairs.data.splits import contradictions, question_components, split_pairs
from qpairs.evaluation.predict import predict
from qpairs.training.fit import train
from qpairs.training.teachers import trained_here
from qpairs.training.trainer import Progress

log = logging.getLogger(__name__)

CONFIDENCE = 0.8  # probability of the other label at which models dispute one
DISPUTED, CONTRADICTED = "models dispute it", "other labels contradict it"


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        question1, question2: the pair.
        is_duplicate: its label as given; suggested: the other one.
        probability: of being duplicates, by a model that has seen neither question.
        reason: what speaks against the label.
    """

    question1: str
    question2: str
    is_duplicate: int
    suggested: int
    probability: float
    reason: str


@dataclass(frozen=True)
class Audit:
    """What speaks against the labels of some pairs.

    Attributes:
        pairs: the pairs.
        probability: (n,) of being duplicates, by a model that has seen no question of the pair's component.
        disputed: (n,) bool, labels that these models dispute with confidence.
        contradicted: (n,) bool, labels 0 that other labels contradict.
    """

    pairs: Pairs
    probability: NDArray[np.float64]
    disputed: NDArray[np.bool_]
    contradicted: NDArray[np.bool_]

    @property
    def order(self) -> NDArray[np.int64]:
        """(n,) all rows, the most suspicious first: by how many reasons there are, then by the label's probability."""
        given = np.where(self.pairs.labels == 1, self.probability, 1 - self.probability)
        return np.lexsort((given, -(self.disputed.astype(int) + self.contradicted)))

    @property
    def suspects(self) -> list[Suspect]:
        """The labels that anything speaks against, the most suspicious first."""
        found = self.order[: int((self.disputed | self.contradicted).sum())]
        return [
            Suspect(
                *self.pairs.texts(row),
                is_duplicate=int(self.pairs.labels[row]),
                suggested=1 - int(self.pairs.labels[row]),
                probability=float(self.probability[row]),
                reason=" and ".join(
                    reason
                    for reason, rows in ((DISPUTED, self.disputed), (CONTRADICTED, self.contradicted))
                    if rows[row]
                ),
            )
            for row in found.tolist()
        ]

    @property
    def average_precision(self) -> float:
        """Of the models on the pairs that they have not seen, by the labels as given."""
        return metrics.average_precision(self.probability, self.pairs.labels)


def audit(
    config: Config | None = None,
    *,
    folds: int = 5,
    confidence: float = CONFIDENCE,
    pairs: Pairs | None = None,
    on_progress: Callable[[int, Progress], None] | None = None,
    **options: Any,
) -> Audit:
    """Looks for wrong labels by the graph, and by models trained on the other folds.

    Args:
        config: how the models are trained; its `data` is audited, its parts and output are not read.
        folds: parts that the components are dealt to, so that none shares a question with another.
        confidence: probability of the other label at which the models dispute one.
        pairs: the data, where it is loaded already.
        on_progress: called with the fold, from 0, at every step of its training.
        options: fields of `Config`, over those of `config`.

    Raises:
        UserError: the data cannot be used, or has too few components; the confidence is no probability.
    """
    need_cleanlab()
    if not 0 <= confidence <= 1:
        raise UserError(f"audit: confidence is {confidence:g}; it takes a probability, 0 to 1")
    config = config_from({**(to_dict(config) if config else {}), **options}, where="audit")
    if len(trained_here(config.teacher)) < len(config.teacher):
        raise UserError("audit: a teacher that knows the labels disputes none; minilm trains one for each fold")
    pairs = pairs or load_pairs(config.data, columns=config.columns, skip_bad_rows=config.skip_bad_rows)
    need_both_labels(pairs, "audit")
    fold = component_folds(pairs, folds, config.seed)
    probability = np.empty(len(pairs))
    with _scratch() as scratch:
        for k in range(folds):
            cut = split_pairs(
                pairs.subset(fold != k),
                validation_fraction=config.validation_fraction,
                test_fraction=0.0,
                seed=config.seed,
            )
            model = train(
                dataclasses.replace(config, output=str(scratch / str(k))),
                parts=Parts(cut.train, cut.validation, None, {"fingerprint": cut.fingerprint}),
                on_progress=functools.partial(on_progress, k) if on_progress else None,
            )
            probability[fold == k] = predict(model, pairs.subset(fold == k)).probability
            log.info("audit: fold %d of %d is judged", k + 1, folds)
    contradicted = np.zeros(len(pairs), dtype=np.bool_)
    contradicted[contradictions(pairs)] = True
    return Audit(pairs, probability, disputed(pairs.labels, probability, confidence), contradicted)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the models, which is gone afterwards: what training says of it is kept back."""
    trainer = logging.getLogger("qpairs.training.fit")
    with tempfile.TemporaryDirectory(prefix="qpairs-audit-") as folder:

        def of_use(record: logging.LogRecord) -> bool:
            return folder not in record.getMessage()

        trainer.addFilter(of_use)
        try:
            yield Path(folder)
        except UserError as error:
            raise UserError("audit: " + "; ".join(p for p in str(error).split("; ") if folder not in p)) from None
        finally:
            trainer.removeFilter(of_use)


def component_folds(pairs: Pairs, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """(n,) fold of each pair: components go, the largest first, to the fold with the fewest pairs.

    Raises:
        UserError: there are fewer components than folds.
    """
    component = question_components(pairs)[pairs.left]
    sizes = np.bincount(component)
    present = np.random.default_rng(seed).permutation(np.flatnonzero(sizes))
    if not 2 <= folds <= len(present):
        raise UserError(
            f"audit: {len(pairs)} pairs in {len(present)} groups that share no question do not make {folds} folds; "
            f"--folds takes 2 to {len(present)}"
        )
    fold_of, loads = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for c in present[np.argsort(-sizes[present], kind="stable")]:
        fold_of[c] = loads.argmin()
        loads[fold_of[c]] += sizes[c]
    return fold_of[component]


def disputed(
    labels: NDArray[np.int8], probability: NDArray[np.float64], confidence: float = CONFIDENCE
) -> NDArray[np.bool_]:
    """(n,) the labels that confident learning calls wrong (Northcutt, Jiang and Chuang, 2021), by cleanlab.

    It estimates how many labels of each class are wrong from the pairs whose probability of the other class is above
    the mean of that class, and calls so many of the least probable ones wrong ("prune by noise rate"). Models that are
    unsure of many pairs make that too many: a label is disputed where, besides, they are confident of the other one.

    Args:
        labels: (n,) 0 or 1.
        probability: (n,) of being duplicates, by models that have not seen the pair.
        confidence: least probability of the other label.

    Raises:
        UserError: cleanlab is not installed.
    """
    need_cleanlab()
    from cleanlab.filter import find_label_issues

    table = np.stack([1 - probability, probability], axis=1)  # (n, 2)
    other = table[np.arange(len(labels)), 1 - labels]
    wrong: NDArray[np.bool_] = find_label_issues(labels.astype(np.int64), table, n_jobs=1) & (other >= confidence)
    return wrong


def need_cleanlab() -> None:
    """Raises UserError where the extra `audit` is not installed."""
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError("an audit needs cleanlab: pip install 'qpairs[audit]'") from None
