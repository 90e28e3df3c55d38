"""How an export compares with its checkpoint: an encoder, a cross-encoder, or both as one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parity:
    """How an export compares with its checkpoint on labelled pairs.

    Attributes:
        n: pairs.
        cosine_mean, cosine_min: between the vectors of a question by checkpoint and by export.
        f1_before, f1_after: of checkpoint and export, cross-fitted: half the pairs at the threshold of the others.
        threshold_before, threshold_after: the checkpoint's, and the export's own, which is chosen on these pairs.

    >>> Parity(838, 0.9995, 0.998, 0.752, 0.751, 0.812, 0.811).f1_after
    0.751
    """

    n: int
    cosine_mean: float
    cosine_min: float
    f1_before: float
    f1_after: float
    threshold_before: float
    threshold_after: float

    def lines(self) -> list[str]:
        """Further figures to print, besides F1.

        >>> len(Parity(838, 0.9995, 0.998, 0.752, 0.751, 0.812, 0.811).lines())
        1
        """
        return [
            f"cosine of a question's vector to the checkpoint's: {self.cosine_mean:.4f} on average, at least "
            f"{self.cosine_min:.4f}; threshold {self.threshold_before:.3f} before, {self.threshold_after:.3f} after"
        ]


@dataclass(frozen=True)
class PairParity:
    """How two forms of a cross-encoder compare on labelled pairs.

    Attributes:
        n: pairs.
        difference_mean, difference_max: absolute, between the logits of a pair.
        f1_before, f1_after: cross-fitted: half the pairs at the threshold of the others.
        average_precision_before, average_precision_after: of the logits.
    """

    n: int
    difference_mean: float
    difference_max: float
    f1_before: float
    f1_after: float
    average_precision_before: float
    average_precision_after: float

    def lines(self) -> list[str]:
        """Further figures to print, besides F1."""
        return [
            f"logit of a pair against the checkpoint's: {self.difference_mean:.3f} apart on average, at most "
            f"{self.difference_max:.3f}; average precision {self.average_precision_before:.3f} before, "
            f"{self.average_precision_after:.3f} after"
        ]


@dataclass(frozen=True)
class StagesParity:
    """How the export of a model of two stages compares with the model on labelled pairs.

    Attributes:
        n: pairs.
        first: of the encoder.
        second: of the cross-encoder.
        f1_before, f1_after: of both together, cross-fitted.
        threshold_before, threshold_after: log odds.
    """

    n: int
    first: Parity
    second: PairParity
    f1_before: float
    f1_after: float
    threshold_before: float
    threshold_after: float

    def lines(self) -> list[str]:
        """Further figures to print, besides F1."""
        parts: dict[str, Parity | PairParity] = {"encoder": self.first, "cross-encoder": self.second}
        return [
            f"{name}: F1 {part.f1_before:.3f} before, {part.f1_after:.3f} after; {line}"
            for name, part in parts.items()
            for line in part.lines()
        ]
