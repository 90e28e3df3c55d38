"""The verdict as stored in the JSON file of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from qpairs.metrics import Calibration, Densities, OperatingPoint
from qpairs.models.verdict import PairSetting, Reference, Verdict


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values for JSON."""
    shortened = {str(length): verdict_to_dict(short) for length, short in verdict.shortened.items()}
    return asdict(replace(verdict, densities=None, shortened={})) | {
        "densities": verdict.densities and verdict.densities.to_dict(),
        "shortened": shortened,
    }


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The verdict in the JSON of a model; before format 2 its parts were separate keys of the file.

    Raises:
        KeyError, TypeError: a part is missing, or is not what it should be.
    """
    if "verdict" in data:
        stored = data["verdict"]
        score, symmetric, pair = stored["score"], stored["symmetric"], stored["pair"]
    else:
        options, stored = data.get("config", data), data
        score, symmetric, pair = options.get("score", "cosine"), options.get("symmetric", True), data
    reference, tfidf, densities = (stored.get(name) for name in ("reference", "tfidf_threshold", "densities"))
    return Verdict(
        PairSetting(
            float(pair["threshold"]),
            Calibration(**pair["calibration"]),
            [OperatingPoint(**point) for point in pair.get("operating_points", ())],
        ),
        score,
        symmetric,
        reference and Reference(**reference),
        tfidf if tfidf is None else float(tfidf),
        densities and Densities.from_dict(densities),
        {int(length): verdict_from_dict({"verdict": short}) for length, short in stored.get("shortened", {}).items()},
        stored.get("labelled", True),
    )
