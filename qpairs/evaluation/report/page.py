"""The page: its sections, its style and its script in one file.

The page loads nothing, and its content policy forbids it; the same model, pairs and seed give the same bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import string
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from qpairs.data.intents import known_clusters
from qpairs.data.pairs import Pairs, need_both_labels
from qpairs.data.sources import PairSource
from qpairs.evaluation.evaluate import report
from qpairs.evaluation.mistakes import analyse
from qpairs.evaluation.predict import predictions
from qpairs.evaluation.report.corpus import corpus_section
from qpairs.evaluation.report.curves import curves, training
from qpairs.evaluation.report.markup import noun
from qpairs.evaluation.report.question_map import question_map
from qpairs.evaluation.report.second_look import second_look_section
from qpairs.evaluation.report.summary import notices, summary
from qpairs.evaluation.report.tables import mistake_data, mistake_section, slice_section
from qpairs.evaluation.seen import seen_in_training
from qpairs.evaluation.sources import as_pairs, tested_on
from qpairs.models.base import Model, as_model
from qpairs.models.ready import shown_name
from qpairs.models.verdict import score_name

PAGE = Path(__file__).with_name("page.html")


def render(
    model: Model | str | Path,
    data: PairSource | None = None,
    *,
    title: str = "",
    source: str = "",
    trained_on: Pairs | None = None,
    intents: Mapping[str, str] | None = None,
    seed: int = 0,
) -> str:
    """The page as a text.

    Args:
        model: a model, or its folder.
        data: labelled pairs, or their source; without it, those that the model was tested on.
        title: the name of the model on the page; without it, that of its folder.
        source: the name of the pairs on the page.
        trained_on: the training pairs, whose words are the known ones; not needed without `data`.
        intents: question -> intent for all questions, as in `evaluate`.
        seed: of the bootstrap, of the test of slices, and of the map.

    Raises:
        UserError: the data cannot be used, or has pairs of one label only; the test pairs are gone or have changed.
    """
    model = as_model(model)
    model.verdict.require_labelled(shown_name(model))
    if data is None:
        pairs, source, trained_on = tested_on(model)
    else:
        pairs, source = as_pairs(data), source or "the pairs given"
    need_both_labels(pairs, "report")
    if intents is not None:
        known_clusters(pairs, intents)  # an error is raised before the questions are embedded
    scores, tables = model.score_pairs(pairs)
    seen = seen_in_training(model, pairs, trained_on)
    found = dataclasses.replace(report(model, pairs, scores, tables, intents=intents, seed=seed), seen_in_training=seen)
    predicted = predictions(model.verdict.pair, scores)
    analysis = analyse(model, pairs, trained_on=trained_on, predictions=predicted, seed=seed)
    score = score_name(model.verdict.score)
    script, style = (PAGE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".js", ".css"))
    return string.Template(PAGE.read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"script-src {_hash(script)}; style-src {_hash(style)}",
        title=escape(title or model.path.name or Path(model.config.output).name or noun(model)),
        style=style,
        script=script,
        score=score.capitalize(),
        verdict=summary(model, found, source, notices(model, found, data is None, trained_on)),
        threshold="\n".join(curves(found, predicted, score)),
        second_look=second_look_section(model, found, tables, pairs),
        corpus=corpus_section(found.corpus, model.verdict.score),
        training=training(model),
        slices=slice_section(analysis, found.f1),
        mistakes=mistake_section(analysis),
        map=question_map(analysis, tables, found.collapsed, seed),
        footer=_footer(model),
        data=_json(mistake_data(analysis)),
    )


def _footer(model: Model) -> str:
    version = escape(model.versions.get("qpairs", ""))
    return (
        "<p>F1 is the harmonic mean of precision (how many of the pairs called duplicates are) and recall (how many of "
        "the duplicates are found). Intervals are 95 %, by bootstrap over groups of pairs that share questions. The "
        f"{noun(model)} was made by qpairs {version}.</p>"
    )


def _hash(text: str) -> str:
    """The name by which a policy allows this script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(values: Any) -> str:
    """JSON in which no text can close a script element."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
