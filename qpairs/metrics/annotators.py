"""How often each annotator is wrong, without knowing the truth: the model of Dawid and Skene (1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.agreement import NONE
from qpairs.metrics.inputs import Floats, Ints
from qpairs.metrics.logistic import expit, logit

RIGHT, WRONG = 4.0, 1.0  # answers of each kind that every annotator is taken to have given beforehand
LEAST_SHARE = 1e-6  # of duplicates in a group, and of others
STEPS, CLOSE = 1000, 1e-6  # of expectation maximization


@dataclass(frozen=True)
class AnnotatorRates:
    """What the answers of m annotators to n pairs say about the annotators and the pairs.

    Attributes:
        sensitivity: (m,) share of the duplicates that each calls duplicates.
        specificity: (m,) share of the other pairs that each calls different.
        log_ratio: (n,) log of P(answers | duplicate) / P(answers | not): what the answers alone say of a pair.
        probability: (n,) that a pair is a duplicate, by its answers and the share of duplicates in its group.
        prevalence: (groups,) share of duplicates in each group.
        answers: (2, m) answers of each to duplicates, and to other pairs, as far as they are known; with those that are
            taken to have been given beforehand.

    >>> rates = dawid_skene([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1]] * 20)
    >>> len(rates.sensitivity), len(rates.probability), rates.prevalence.round(1).tolist()
    (3, 80, [0.5])
    """

    sensitivity: Floats
    specificity: Floats
    log_ratio: Floats
    probability: Floats
    prevalence: Floats
    answers: Floats

    def draw(self, rng: np.random.Generator, times: int) -> Floats:
        """(times, 2, m) sensitivities and specificities, drawn from what so many answers leave open.

        Args:
            rng: random numbers.
            times: number of draws.

        >>> rates = dawid_skene([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1]] * 20)
        >>> rates.draw(np.random.default_rng(0), 1000).mean(axis=0)[0].round(2).tolist()
        [0.98, 0.98, 0.53]
        """
        right = np.stack([self.sensitivity, self.specificity]) * self.answers
        return rng.beta(right, self.answers - right, (times, *right.shape))


def dawid_skene(
    answers: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    known: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> AnnotatorRates:
    """Error rates of annotators and the probability of each pair, by expectation maximization.

    The model of Dawid and Skene ("Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979)
    for two classes: given what a pair is, annotators err independently, each with its own rates. Two annotators are
    enough where the share of duplicates differs between groups of pairs, such as the strata of a drawing (Hui and
    Walter, "Estimating the error rates of diagnostic tests", 1980); with one group, three are needed. Every annotator
    starts with `RIGHT` right and `WRONG` wrong answers of each class, so that few answers prove nobody faultless.

    Args:
        answers: (n, m) 1 duplicate, 0 not, -1 if an annotator did not label a pair.
        groups: (n,) whole numbers from 0 on; each group has its own share of duplicates. One group without them.
        known: (n,) 1 or 0 where the truth is known, -1 elsewhere.
        weights: (n,) how often each pair counts; once without them.

    >>> rates = dawid_skene([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]] * 20)
    >>> rates.sensitivity.round(2).tolist(), (rates.probability > 0.5)[:4].tolist()
    ([0.98, 0.98, 0.68], [True, False, True, False])
    """
    table = np.asarray(answers)
    if table.ndim != 2 or not table.size or not np.isin(table, (NONE, 0, 1)).all():
        raise ValueError("answers must be (pairs, annotators) of 1, 0 and -1, and not be empty")
    yes, no = table == 1, table == 0
    group: Ints = np.zeros(len(table), np.int64) if groups is None else np.asarray(groups, dtype=np.int64)
    sure = np.full(len(table), NONE) if known is None else np.asarray(known)
    weight = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    probability = np.where(sure == NONE, (yes.sum(axis=1) + 0.5) / (yes.sum(axis=1) + no.sum(axis=1) + 1), sure)
    prior = RIGHT / (RIGHT + WRONG) * np.ones(table.shape[1])
    sensitivity, specificity, log_ratio, prevalence = prior, prior, np.zeros(len(table)), np.zeros(0)
    counts = np.zeros((2, table.shape[1]))
    for _ in range(STEPS):
        mass, rest = weight * probability, weight * (1 - probability)
        counts = RIGHT + WRONG + np.stack([mass, rest]) @ (yes | no)
        sensitivity, specificity = (RIGHT + mass @ yes) / counts[0], (RIGHT + rest @ no) / counts[1]
        shares = np.bincount(group, mass) / np.maximum(np.bincount(group, weight), 1e-12)
        prevalence = shares.clip(LEAST_SHARE, 1 - LEAST_SHARE)
        log_ratio = yes @ np.log(sensitivity / (1 - specificity)) + no @ np.log((1 - sensitivity) / specificity)
        before = probability
        probability = np.where(sure == NONE, expit(logit(prevalence)[group] + log_ratio), sure)
        if np.abs(probability - before).max() < CLOSE:
            break
    return AnnotatorRates(sensitivity, specificity, log_ratio, probability, prevalence, counts)
