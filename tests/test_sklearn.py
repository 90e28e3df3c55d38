"""The estimator of scikit-learn: its own checks where they apply, and what they would check on pairs of texts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from qpairs.core.exceptions import UserError
from qpairs.sklearn import DuplicateClassifier, question_groups

NUMBERS = "the X of the check holds numbers, and a row of X is a pair of texts"
EXPECTED_FAILURES = dict.fromkeys(
    (
        "check_classifier_data_not_an_array",
        "check_classifiers_classes",
        "check_classifiers_train",
        "check_decision_proba_consistency",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_supervised_y_2d",
    ),
    NUMBERS,
)


@parametrize_with_checks(
    [DuplicateClassifier(encoder="static", epochs=1)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
    xfail_strict=True,
)
def test_the_checks_of_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def frame(pairs_csv: Path) -> pandas.DataFrame:
    return pandas.read_csv(pairs_csv)


@pytest.fixture(scope="module")
def X(frame: pandas.DataFrame) -> pandas.DataFrame:
    return frame[["question1", "question2"]]


@pytest.fixture(scope="module")
def fitted(X: pandas.DataFrame, frame: pandas.DataFrame) -> DuplicateClassifier:
    return DuplicateClassifier(encoder="static", epochs=1, batch_size=16).fit(X, frame["is_duplicate"])


def test_all_forms_of_pairs_give_the_same(fitted: DuplicateClassifier, X: pandas.DataFrame) -> None:
    expected, rows = fitted.predict_proba(X), list(X.itertuples(index=False, name=None))
    for form in (rows, X.to_numpy(), X.to_numpy().astype(str), X.to_dict("records"), np.asfortranarray(X.to_numpy())):
        np.testing.assert_allclose(fitted.predict_proba(form), expected, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(fitted.predict_proba(X.iloc[order]), expected[order], atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(X[:7]), expected[:7], atol=1e-6)


def test_decisions_and_probabilities_are_those_of_the_model(fitted: DuplicateClassifier, X: pandas.DataFrame) -> None:
    found = fitted.model_.predict(X)
    assert fitted.predict(X).tolist() == found.duplicate.astype(int).tolist()
    assert ((fitted.decision_function(X) >= 0) == found.duplicate).all()
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.predict_proba(X)[:, 1], found.probability)
    higher = clone(fitted).set_params(threshold=1.0)
    assert higher.get_params()["threshold"] == 1.0
    higher.model_, higher.classes_ = fitted.model_, fitted.classes_
    assert higher.predict(X).sum() < fitted.predict(X).sum()


def test_fitting_again_gives_the_same_and_changes_no_parameter(
    fitted: DuplicateClassifier, X: pandas.DataFrame, frame: pandas.DataFrame
) -> None:
    before = fitted.get_params()
    words = np.where(frame["is_duplicate"] == 1, "same", "other")
    again = clone(fitted).fit(X.to_numpy(), words)
    assert again.classes_.tolist() == ["other", "same"]
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert set(again.predict(X)) <= {"same", "other"}
    assert fitted.get_params() == before
    assert fitted.n_features_in_ == 2
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def test_a_pickle_holds_the_files_of_the_model(fitted: DuplicateClassifier, X: pandas.DataFrame) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
    assert copy.model_.path != fitted.model_.path
    assert copy.model_.fingerprint == fitted.model_.fingerprint
    state = fitted.__getstate__()
    state["_files"] = {"../outside": b""}
    with pytest.raises(UserError, match="not a file of a model"):
        DuplicateClassifier().__setstate__(state)


def test_no_question_is_in_two_groups_and_searches_take_the_groups(X: pandas.DataFrame, frame: pandas.DataFrame):
    y, groups = frame["is_duplicate"], question_groups(X)
    seen: dict[str, int] = {}
    for row, group in zip(X.itertuples(index=False), groups.tolist(), strict=True):
        assert {seen.setdefault(text, group) for text in row} == {group}
    assert sorted(set(groups)) == list(range(max(groups) + 1))
    estimator = make_pipeline(DuplicateClassifier(encoder="static", epochs=1, batch_size=16))
    scores = cross_val_score(estimator, X, y, groups=groups, cv=GroupKFold(2), scoring="roc_auc", error_score="raise")
    assert (scores > 0.5).all()
    grid = {"loss": ["contrastive", "cosent"]}
    search = GridSearchCV(estimator[-1], grid, cv=GroupKFold(2), scoring="f1", error_score="raise")
    assert search.fit(X.to_numpy(), y, groups=groups).best_params_["loss"] in grid["loss"]


def test_a_frame_of_two_columns_needs_no_names(fitted: DuplicateClassifier, X: pandas.DataFrame) -> None:
    """One that a transformer gave, or of other names, was refused, though the array of it was taken."""
    for names in (["left", "right"], [0, 1]):
        np.testing.assert_array_equal(fitted.predict(X.set_axis(names, axis=1)), fitted.predict(X))
    assert question_groups(X.set_axis([0, 1], axis=1)).tolist() == question_groups(X).tolist()
    with pytest.raises(UserError, match="no pair of question columns"):
        fitted.predict(X.set_axis(["left", "right"], axis=1).assign(more=1))


def test_a_random_state_draws_the_seed(X: pandas.DataFrame, frame: pandas.DataFrame) -> None:
    classifier = DuplicateClassifier(encoder="static", epochs=0.1, random_state=np.random.RandomState(3))
    seeds = [classifier.fit(X, frame["is_duplicate"]).model_.config.seed for _ in range(2)]
    expected = np.random.RandomState(3).randint(2**31 - 1, size=2).tolist()
    assert seeds == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"options": {"epochs": 2}}, "options: 'epochs' is not one of them; use epochs"),
        ({"options": {"seed": 2}}, "use random_state"),
        ({"options": {"output": "here"}}, "use model_.save"),
        ({"options": {"data": "mine.csv"}}, "use X and y"),
        ({"validation_fraction": 0}, "must be 0 < validation_fraction < 1"),
    ],
)
def test_options_that_a_classifier_does_not_take(
    options, words: str, X: pandas.DataFrame, frame: pandas.DataFrame
) -> None:
    """A traceback of Python or of transformers named neither the option nor its place."""
    with pytest.raises(UserError, match=words):
        DuplicateClassifier(encoder="static", **options).fit(X, frame["is_duplicate"])


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([("a", "b"), ("c", None)], [0, 1], "row 2: column 'question2' has no question"),
        (np.array([["a", "b", "c"]] * 2), [0, 1], "has 3 features, but a pair of texts has 2"),
        ([("a", "b"), ("c", "d")], [0, 1, 1], "3 classes for 2 pairs"),
        ([("a", "b"), ("c", "d")], [1, 1], "1 class; pairs of both classes are needed"),
        ([("a", "b"), ("c", "d"), ("e", "f")], [0, 1, 2], "Only binary classification is supported"),
    ],
)
def test_what_is_no_pairs_is_refused(x, y, words: str) -> None:
    with pytest.raises(UserError, match=words):
        DuplicateClassifier(encoder="static").fit(x, y)
