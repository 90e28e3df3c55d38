"""How an export compares with its checkpoint."""

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
    """

    n: int
    cosine_mean: float
    cosine_min: float
    f1_before: float
    f1_after: float
    threshold_before: float
    threshold_after: float

    def lines(self) -> list[str]:
        """What a person may want to read of it, beside F1."""
        return [
            f"cosine of a question's vector to the checkpoint's: {self.cosine_mean:.4f} on average, at least "
            f"{self.cosine_min:.4f}; threshold {self.threshold_before:.3f} before, {self.threshold_after:.3f} after"
        ]
