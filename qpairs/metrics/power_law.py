"""How a score grows with the number of labelled pairs: an inverse power law, fitted to the means of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qpairs.metrics.inputs import Floats

EXPONENTS = np.geomspace(0.05, 2.0, 300)  # what is tried; learning curves that were measured lie well inside
LEAST_SIZES = 4  # for three numbers


@dataclass(frozen=True)
class PowerLaw:
    """score(n) = limit - gap (n / reference)^-exponent, for one curve, or for each of some resampled ones.

    Attributes:
        limit: score of endlessly many pairs, at most 1.
        gap: what is missing to it at `reference` pairs, at least 0.
        exponent: how fast the gap closes.
        reference: pairs.

    >>> law = PowerLaw(np.array(0.9), np.array(0.1), np.array(1.0), reference=1000)
    >>> round(float(law.at(2000)), 3), round(float(law.gain(1000, 2000)), 3)
    (0.85, 0.05)
    """

    limit: Floats
    gap: Floats
    exponent: Floats
    reference: float

    def at(self, pairs: float) -> Floats:
        """The score of a number of pairs.

        >>> PowerLaw(np.array(0.9), np.array(0.1), np.array(1.0), reference=1000).at(2000).round(2).item()
        0.85
        """
        score: Floats = self.limit - self.gap * (pairs / self.reference) ** -self.exponent
        return score

    def gain(self, pairs: float, more: float) -> Floats:
        """What `more` pairs bring over `pairs` of them.

        >>> PowerLaw(np.array(0.9), np.array(0.1), np.array(1.0), reference=1000).gain(1000, 2000).round(2).item()
        0.05
        """
        return self.at(more) - self.at(pairs)


def fit_power_law(sizes: Sequence[int], scores: ArrayLike, weights: ArrayLike) -> PowerLaw:
    """The inverse power law of least weighted squares; limit <= 1, gap >= 0 and 0.05 <= exponent <= 2.

    Cortes et al. 1993 (Learning curves: asymptotic values and rate of convergence); of the laws that Viering and Loog
    2022 (The shape of learning curves, section 4) compare, the one of three parameters that levels off. For each of 300
    exponents the other two numbers have a closed form, so the fit is no matter of where a search begins.

    Args:
        sizes: s numbers of pairs, rising, `LEAST_SIZES` or more.
        scores: (s,) the score of each size, or (r, s) of r curves.
        weights: (s,) of the sizes, such as 1 / variance.

    Raises:
        ValueError: too few sizes, sizes that do not rise, or numbers that do not fit together.

    >>> sizes = [100, 200, 400, 800]
    >>> law = fit_power_law(sizes, [0.9 - 2 * n**-0.5 for n in sizes], np.ones(4))
    >>> round(float(law.limit), 2), round(float(law.exponent), 2), round(float(law.at(1600)), 3)
    (0.9, 0.5, 0.85)
    """
    values, weight = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if len(sizes) < LEAST_SIZES or (np.diff(sizes) <= 0).any() or min(sizes) <= 0:
        raise ValueError(f"at least {LEAST_SIZES} rising sizes are needed, not {list(sizes)}")
    if values.shape[-1] != len(sizes) or weight.shape != (len(sizes),) or not (weight > 0).all():
        raise ValueError(f"scores {values.shape} and weights {weight.shape} do not fit {len(sizes)} sizes")
    reference, curves = float(sizes[-1]), np.atleast_2d(values)  # (r, s)
    decay = (np.asarray(sizes) / reference) ** -EXPONENTS[:, None]  # (e, s)
    limit, gap = _ends(decay, curves, weight / weight.sum())  # (3, e, r) each
    fitted = limit[..., None] - gap[..., None] * decay[:, None]  # (3, e, r, s)
    squares = np.where((limit <= 1) & (gap >= 0), ((curves - fitted) ** 2) @ (weight / weight.sum()), np.inf)
    best = np.unravel_index(squares.reshape(-1, len(curves)).argmin(axis=0), squares.shape[:2])  # (r,) kind, exponent
    place = (*best, np.arange(len(curves)))
    shape = values.shape[:-1]
    exponent = np.asarray(EXPONENTS[best[1]])
    return PowerLaw(limit[place].reshape(shape), gap[place].reshape(shape), exponent.reshape(shape), reference)


def _ends(decay: Floats, curves: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Limit and gap (3, e, r) of least squares for each exponent: without bounds, with the limit at 1, with no gap."""
    middle, mean = decay @ weight, curves @ weight  # (e,), (r,)
    centred = (decay - middle[:, None]) * weight  # (e, s)
    free = -(centred @ curves.T) / (centred * decay).sum(axis=1)[:, None]  # (e, r)
    at_one = ((decay * weight) @ (1 - curves).T) / (decay**2 @ weight)[:, None]
    flat = np.broadcast_to(np.minimum(mean, 1), free.shape)
    return np.stack([mean + free * middle[:, None], np.ones_like(free), flat]), np.stack([free, at_one, 0 * free])
