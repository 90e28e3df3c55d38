"""A classifier of question pairs for scikit-learn: `DuplicateClassifier`, and groups for cross-validation.

A row of X is a pair: two texts. `cross_val_score`, `GridSearchCV` and `Pipeline` take the classifier like any other.
Give them `question_groups(X)` as groups and a `GroupKFold`, so that no question of a test fold is in training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d

from qpairs.config import OPTIONS
from qpairs.core.exceptions import UserError
from qpairs.data.pairs import Pairs
from qpairs.data.parts import Parts
from qpairs.data.sources import PairSource, load_pairs
from qpairs.data.splits import question_components, split_pairs
from qpairs.models.base import Model, load
from qpairs.models.verdict import check_threshold
from qpairs.training.fit import train

ELSEWHERE = {  # options of `qpairs.train` -> where a classifier has them
    **dict.fromkeys(("config", "data", "validation", "test", "drop_suspects", "augment", "parts"), "X and y"),
    **dict.fromkeys(("output", "overwrite", "resume"), "model_.save"),
    "seed": "random_state",
    "test_fraction": "validation_fraction",
}


class DuplicateClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A scikit-learn classifier that separates duplicates from other pairs.

    A row of X is a pair of texts: X is an array (n, 2) of texts, a list of tuples, or a data frame with two columns of
    any names, or with more columns of which two have usual names, such as question1 and question2. y has two classes;
    the greater one is for duplicates.

    Args:
        encoder: as the option of `qpairs.train`, as are the next six.
        loss: an expression, or a function (sim, Relation) -> scalar.
        miner: an expression, or a function (sim, Relation) -> Relation.
        epochs: passes over the pairs.
        batch_size: pairs in a batch.
        learning_rate: the peak rate; None: the encoder's default.
        validation_fraction: share of the pairs, whole components, on which the threshold is chosen.
        threshold: the lowest score of a duplicate; None: the one that is chosen on validation.
        options: further options of `qpairs.train`, by name, except those of the data and those with a parameter here.
        random_state: seed of every random choice, or a `numpy.random.RandomState` that draws it; None is 0.

    Attributes:
        classes_: (2,) the classes.
        model_: the trained model, which can do more: `model_.dedupe`, `model_.search`, `model_.save`.
        n_features_in_: 2.

    >>> X = [("How do I pay?", "How can I pay?"), ("Who?", "How do I pay?")]
    >>> DuplicateClassifier(encoder="static", epochs=1).fit(X * 20, [1, 0] * 20)  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: str = "minilm",
        *,
        loss: Any = "online_contrastive + 0.6*strangers",
        miner: Any = "everything",
        epochs: float = 1.0,
        batch_size: int = 64,
        learning_rate: float | None = None,
        validation_fraction: float = 0.1,
        threshold: float | None = None,
        options: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.encoder = encoder
        self.loss = loss
        self.miner = miner
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.threshold = threshold
        self.options = options
        self.random_state = random_state

    def fit(self, X: PairSource, y: ArrayLike | None = None) -> Self:
        """Trains on pairs and their classes; the threshold is chosen on a part of them.

        Args:
            X: (n, 2) pairs of texts.
            y: (n,) classes, two of them.

        Raises:
            UserError: X does not hold pairs of texts, y does not match it, there are too few pairs of both classes for
                validation, an option is unknown, or no score can have the threshold.

        >>> from sklearn.base import clone
        >>> clone(DuplicateClassifier(encoder="static", epochs=2)).epochs
        2
        """
        options = _options(self)
        if self.threshold is not None:  # before any work
            check_threshold(self.threshold, _score_of(options))
        classes, labels = _two_classes(y)
        pairs = as_question_pairs(X)
        if len(pairs) != len(labels):
            raise UserError(f"y: {len(labels)} classes for {len(pairs)} pairs; give one for each")
        self.classes_, self.n_features_in_ = classes, 2
        labelled = Pairs(pairs.questions, pairs.left, pairs.right, labels)
        seed = _seed(self.random_state)
        cut = split_pairs(labelled, validation_fraction=self.validation_fraction, test_fraction=0.0, seed=seed)
        if not len(cut.validation):
            raise UserError(f"validation_fraction: {self.validation_fraction}, must be 0 < validation_fraction < 1")
        parts = Parts(cut.train, cut.validation, None, _split_of(cut.train, cut.validation, cut.fingerprint))
        self._folder = tempfile.TemporaryDirectory(prefix="qpairs-")
        self.model_ = train(
            parts=parts,
            output=str(Path(self._folder.name) / "model"),
            seed=seed,
            encoder=self.encoder,
            loss=self.loss,
            miner=self.miner,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            **options,
        )
        return self

    def decision_function(self, X: PairSource) -> NDArray[np.float64]:
        """Scores (n,) minus the threshold: 0 or more means duplicate.

        >>> classifier.decision_function([("How do I pay?", "How can I pay?")]) >= 0
        array([ True])
        """
        found = self._model.predict(as_question_pairs(X), threshold=self.threshold)
        return np.asarray(found.similarity, dtype=np.float64) - float(found.threshold or 0.0)

    def predict_proba(self, X: PairSource) -> NDArray[np.float64]:
        """Probabilities (n, 2) of the classes, calibrated on validation.

        The class is decided by the threshold, not by a probability of one half: that of `qpairs` is the one with the
            highest F1.

        >>> classifier.predict_proba([("How do I pay?", "How can I pay?")]).shape
        (1, 2)
        """
        duplicate = self._model.predict(as_question_pairs(X)).probability
        return np.stack([1 - duplicate, duplicate], axis=1)

    def predict(self, X: PairSource) -> NDArray[Any]:
        """Classes (n,) of the pairs.

        >>> classifier.predict([("How do I pay?", "How can I pay?"), ("Who?", "How do I pay?")]).tolist()
        [1, 0]
        """
        model = self._model
        found = model.predict(as_question_pairs(X), threshold=self.threshold).duplicate
        classes: NDArray[Any] = self.classes_[found.astype(int)]
        return classes

    @property
    def _model(self) -> Model:
        check_is_fitted(self, "model_")
        model: Model = self.model_
        return model

    def __getstate__(self) -> dict[str, Any]:
        """The parameters and the files of the model; its weights are safetensors, even in a pickle."""
        state = {name: value for name, value in super().__getstate__().items() if name not in ("model_", "_folder")}
        if hasattr(self, "model_"):
            folder = self.model_.path
            files = [file for file in folder.rglob("*") if file.is_file()]
            state["_files"] = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Writes the files into a new folder, and loads the model from there."""
        files: dict[str, bytes] | None = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self._folder = tempfile.TemporaryDirectory(prefix="qpairs-")
            folder = Path(self._folder.name) / "model"
            for name, content in files.items():
                place = folder / name
                if not place.resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"{name}: is not a file of a model")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            self.model_ = load(folder)

    def __sklearn_tags__(self) -> Any:
        """X is a table of texts, and there are two classes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True
        return tags


def question_groups(X: PairSource) -> NDArray[np.int64]:
    """Groups (n,) for cross-validation: pairs that share a question, directly or through others, are in one.

    Args:
        X: (n, 2) pairs of texts.

    >>> question_groups([("How?", "Why?"), ("Why?", "When?"), ("Who?", "Whom?")]).tolist()
    [0, 0, 1]
    """
    pairs = as_question_pairs(X)
    groups: NDArray[np.int64] = np.unique(question_components(pairs)[pairs.left], return_inverse=True)[1]
    return groups


def as_question_pairs(X: PairSource) -> Pairs:
    """The pairs in the rows of X, without labels.

    Raises:
        UserError: X has numbers instead of texts, is sparse, or its rows are not pairs.

    >>> len(as_question_pairs([("How?", "Why?")]))
    1
    """
    if isinstance(X, Pairs):
        return X
    if issparse(X):
        raise UserError("X: sparse data are not supported; a row of X is a pair of texts")
    if hasattr(X, "columns") or not hasattr(X, "__array__"):
        names = list(map(str, getattr(X, "columns", ())))
        return load_pairs(X, labelled=False, columns=names if len(set(names)) == len(names) == 2 else ())
    array = np.asarray(X)
    if np.iscomplexobj(array):
        raise UserError("X: Complex data not supported; a row of X is a pair of texts")
    if array.ndim != 2:
        raise UserError(f"X: Expected 2D array, got {array.ndim}D array instead; give pairs of texts, (n, 2)")
    rows, columns = array.shape
    if columns < 2:
        raise UserError(f"X: {columns} feature(s) (shape=({rows}, {columns})) while a minimum of 2 is required.")
    if columns > 2:
        raise UserError(f"X: has {columns} features, but a pair of texts has 2")
    if not rows:
        raise UserError("X: 0 sample(s) (shape=(0, 2)) while a minimum of 1 is required.")
    return load_pairs([(_python(first), _python(second)) for first, second in array.tolist()], labelled=False)


def _python(cell: Any) -> Any:
    """A cell of an array; texts of numpy as texts."""
    return str(cell) if isinstance(cell, str) else cell


def _options(classifier: DuplicateClassifier) -> dict[str, Any]:
    """The further options of a classifier.

    Raises:
        UserError: one has a place elsewhere.
    """
    options, own = dict(classifier.options or {}), classifier.get_params(deep=False)
    for name in options:
        if name in own or name in ELSEWHERE:
            raise UserError(f"options: {name!r} is not one of them; use {ELSEWHERE.get(name, name)}")
    return options


def _seed(state: int | np.random.RandomState | None) -> int:
    """The seed that a random state stands for."""
    if isinstance(state, np.random.RandomState):
        return int(state.randint(2**31 - 1))
    return 0 if state is None else int(state)


def _score_of(options: Mapping[str, Any]) -> str:
    """The score of the model that these options train, if known from them: see `check_threshold`."""
    any_number = options.get("model", OPTIONS["model"].default) != OPTIONS["model"].default or options.get("reranker")
    return "logit" if any_number else str(options.get("score", "cosine"))


def _two_classes(y: ArrayLike | None) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """The classes (2,), and labels (n,): 1 for the greater one."""
    if y is None:
        raise UserError("y: DuplicateClassifier requires y to be passed, but the target y is None")
    values = column_or_1d(y, warn=True)
    check_classification_targets(values)
    classes, labels = np.unique(values, return_inverse=True)
    if len(classes) > 2:
        kind = type_of_target(values)
        raise UserError(f"y: Only binary classification is supported. The type of the target is {kind}.")
    if len(classes) < 2:
        raise UserError("y: 1 class; pairs of both classes are needed, duplicates and others")
    return classes, labels.astype(np.int8)


def _split_of(train_part: Pairs, validation: Pairs, fingerprint: str) -> dict[str, Any]:
    """What the model stores about its parts."""
    parts = {"train": train_part, "validation": validation}
    return {"fingerprint": fingerprint, "sizes": {name: len(part) for name, part in parts.items()}}
