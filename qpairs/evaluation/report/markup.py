"""Small pieces of HTML, and the format of numbers, for all sections of the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from qpairs.metrics.intervals import Interval
from qpairs.models.base import Model
from qpairs.models.cross_encoder import KINDS, CrossModel
from qpairs.models.exported import Export
from qpairs.models.two_stages import TwoStages, first_stage


def noun(model: Model) -> str:
    """The name of a kind of model on the page."""
    if isinstance(model, TwoStages):
        return "model of two stages"
    if isinstance(model, CrossModel):
        return "cross-encoder"
    return "export" if isinstance(model, Export) else "checkpoint"


def is_export(model: Model) -> bool:
    """Whether a model, or the encoder of a model of two stages, runs without torch."""
    first = first_stage(model)
    return isinstance(first, Export) or (isinstance(first, CrossModel) and first.form.get("kind") != KINDS[0])


def figure(title: str, chart: str, caption: str) -> str:
    """A chart with a heading and a caption."""
    return f"<figure>\n<h3>{escape(title)}</h3>\n{chart}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def facts(values: Mapping[str, str]) -> str:
    """A list of names and values."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in values.items())}</dl>"


def percent(value: float) -> str:
    """A share as `12.3 %`."""
    return f"{100 * value:.1f} %"


def lift(value: float) -> str:
    """A quotient of error rates."""
    return f"{value:.2f}" if np.isfinite(value) else "∞"


def with_interval(value: float, interval: Interval) -> str:
    """A score and its interval."""
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
