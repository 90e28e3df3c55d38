"""Finds labels that are probably wrong: other labels contradict them, or cross-validated models dispute them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from qpairs import metrics
from qpairs.config import Config, config_from, to_dict
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.extras import require
from qpairs.core.progress import OnProgress, Progress, ignore
from qpairs.core.tables import rows_table
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.parts import Parts, reading_options, separate_pairs
from qpairs.data.sources import load_pairs
from qpairs.data.splits import contradictions, question_components, split_pairs
from qpairs.evaluation.predict import predict
from qpairs.evaluation.seen import encoder_checkpoints
from qpairs.models.base import load
from qpairs.models.ready import READY
from qpairs.objectives.plugins import register_custom
from qpairs.training.fit import train
from qpairs.training.names import TRANSFORMERS, teachers_to_train
from qpairs.training.options import TrainOptions, shows_options

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

CONFIDENCE = 0.8  # probability of the other label at which models dispute one
DISPUTED, CONTRADICTED = "models dispute it", "other labels contradict it"


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        question1, question2: the pair.
        is_duplicate: its given label; suggested: the other one.
        probability: of being duplicates, by a model that has seen neither question.
        reason: why the label is suspect.
    """

    question1: str
    question2: str
    is_duplicate: int
    suggested: int
    probability: float
    reason: str


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        pairs: the audited pairs.
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
        """(n,) all rows, the most suspicious first: by number of reasons, then by probability of the given label."""
        given = np.where(self.pairs.labels == 1, self.probability, 1 - self.probability)
        return np.lexsort((given, -(self.disputed.astype(int) + self.contradicted)))

    @property
    def suspects(self) -> list[Suspect]:
        """The disputed or contradicted labels, the most suspicious first."""
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
    def table(self) -> pandas.DataFrame:
        """The suspects, a row for each and a column for each field of `Suspect`."""
        return rows_table(Suspect, self.suspects)

    def _facts(self) -> tuple[str, Mapping[str, object]]:
        return "Audit", {
            "pairs": len(self.pairs),
            "suspects": int((self.disputed | self.contradicted).sum()),
            DISPUTED: int(self.disputed.sum()),
            CONTRADICTED: int(self.contradicted.sum()),
        }

    __repr__, _repr_html_ = one_line, html_card

    @property
    def average_precision(self) -> float:
        """Of the models, on the pairs they have not seen, against the given labels."""
        return metrics.average_precision(self.probability, self.pairs.labels)


@shows_options
def audit(
    config: Config | None = None,
    *,
    folds: int = 5,
    confidence: float = CONFIDENCE,
    pairs: Pairs | None = None,
    on_progress: OnProgress = ignore,
    **options: Unpack[TrainOptions],
) -> Audit:
    """Looks for wrong labels in the graph of duplicates, and with models trained on the other folds.

    Args:
        config: options of the models; its `data` is audited, its parts and output are ignored.
        folds: number of parts; whole components go into one, so that no two parts share a question.
        confidence: least probability of the other label for a model to dispute a label.
        pairs: the data, if it is already loaded.
        on_progress: counts the training steps of all folds; the stage is `fold 2 of 5`.
        options: fields of `Config`; they override those of `config`.

    Raises:
        UserError: the data cannot be used, or has too few components; the confidence is not a probability.
    """
    require("cleanlab", "an audit")
    if not 0 <= confidence <= 1:
        raise UserError(f"audit: confidence is {confidence:g}; it must be a probability, 0 to 1")
    values, given = separate_pairs({**(to_dict(config) if config else {}), **options})
    config = config_from(values, where="audit")
    register_custom(config.imports)
    _check_strangers_to_labels(config)
    pairs = pairs or given.get("data") or load_pairs(config.data, **reading_options(config))
    need_both_labels(pairs, "audit")
    fold = component_folds(pairs, folds, config.seed)
    probability = np.empty(len(pairs))
    with _temporary_folder() as temporary:
        for k in range(folds):
            cut = split_pairs(
                pairs.subset(fold != k),
                validation_fraction=config.validation_fraction,
                test_fraction=0.0,
                seed=config.seed,
            )
            model = train(
                dataclasses.replace(config, output=str(temporary / str(k))),
                parts=Parts(cut.train, cut.validation, None, {"fingerprint": cut.fingerprint}),
                on_progress=_in_fold(k, folds, on_progress),
            )
            probability[fold == k] = predict(model, pairs.subset(fold == k)).probability
            log.info("audit: fold %d of %d is evaluated", k + 1, folds)
    contradicted = np.zeros(len(pairs), dtype=np.bool_)
    contradicted[contradictions(pairs)] = True
    return Audit(pairs, probability, disputed(pairs.labels, probability, confidence), contradicted)


def _in_fold(k: int, folds: int, on_progress: OnProgress) -> OnProgress:
    """Reports the steps of one training as steps of all folds."""

    def report(now: Progress) -> None:
        if not now.total:  # what follows the training
            return
        done, total = k * now.total + now.done, folds * now.total
        on_progress(dataclasses.replace(now, stage=f"fold {k + 1} of {folds}", done=done, total=total))

    return report


def _check_strangers_to_labels(config: Config) -> None:
    """Raises UserError if a model that a fold would start from has already seen the labels."""
    trained = teachers_to_train(config.probability_teachers)
    ready = config.distill != "probabilities" and set(config.teacher) <= set(READY)
    if (len(trained) < len(config.teacher) and not ready) or config.reranker not in ("", *TRANSFORMERS):
        raise UserError(
            "audit: a teacher or reranker that has seen the labels disputes none; use minilm, to train one for each "
            "fold"
        )
    labelled = [path for path in encoder_checkpoints(config.encoder) if not load(path).config.unlabelled]
    if labelled:
        raise UserError(
            f"audit: {labelled[0]} is a checkpoint, and an encoder that has seen the labels disputes none; name the "
            "encoder that it was trained from"
        )


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for the models; log records and errors that name it are left out or shortened, since it is deleted."""
    trainer = logging.getLogger("qpairs.training.run")
    with tempfile.TemporaryDirectory(prefix="qpairs-audit-") as folder:

        def is_relevant(record: logging.LogRecord) -> bool:
            return folder not in record.getMessage()

        trainer.addFilter(is_relevant)
        try:
            yield Path(folder)
        except UserError as error:
            said = [part for part in str(error).split("; ") if folder not in part]
            said = said or [str(error).replace(folder, tempfile.gettempdir())]  # all of it is about this folder
            raise UserError("audit: " + "; ".join(said)) from None
        finally:
            trainer.removeFilter(is_relevant)


def component_folds(pairs: Pairs, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """(n,) fold of each pair: each component, the largest first, goes to the fold with the fewest pairs.

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
    """(n,) bool, the labels that confident learning (Northcutt, Jiang and Chuang, 2021) calls wrong, by cleanlab.

    It estimates how many labels of each class are wrong from the pairs whose probability of the other class is above
    the mean of that class, and calls that many of the least probable labels wrong ("prune by noise rate"). That is too
    many where the models are unsure of many pairs: here a label is disputed only if the models are also confident of
    the other one.

    Args:
        labels: (n,) 0 or 1.
        probability: (n,) of being duplicates, by models that have not seen the pair.
        confidence: least probability of the other label.

    Raises:
        UserError: cleanlab is not installed.
    """
    find_label_issues = require("cleanlab.filter", "an audit").find_label_issues
    table = np.stack([1 - probability, probability], axis=1)  # (n, 2)
    other = table[np.arange(len(labels)), 1 - labels]
    wrong: NDArray[np.bool_] = find_label_issues(labels.astype(np.int64), table, n_jobs=1) & (other >= confidence)
    return wrong
