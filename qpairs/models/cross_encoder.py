"""A cross-encoder with a verdict, trained or exported. This module imports no torch.

A cross-encoder reads both questions of a pair at once (Devlin et al. 2019; Humeau et al. 2020, section 4.2). It sees
the order of words and what exactly differs, which two vectors do not show; but it reads every pair, so it scores given
pairs and cannot search. `two_stages` combines it with an encoder that searches.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tokenizers import Tokenizer

from qpairs.config import Config, config_from
from qpairs.core.cards import html_card, one_line
from qpairs.core.exceptions import UserError
from qpairs.core.progress import OnProgress, ignore
from qpairs.data.pairs import Pairs
from qpairs.encoders.counter import TokenCounter, library_counter
from qpairs.models import methods
from qpairs.models.base import FILE, TOKENIZER, Floats, Side, Tables, copied_folder, fingerprint, model_to_dict
from qpairs.models.graphs import FORMS
from qpairs.models.model_file import write_model_file
from qpairs.models.pair_reader import PairReader, read_pairs
from qpairs.models.predictions import predict_pairs, similarity_of
from qpairs.models.verdict import Verdict
from qpairs.models.verdict_file import verdict_from_dict

KINDS = ("cross-encoder", *(f"cross-encoder-{form}" for form in FORMS))  # in `qpairs.json`


@dataclass(frozen=True)
class CrossModel:
    """A cross-encoder and its verdict: a `Model` without vectors, whose score is the logit of a duplicate.

    Attributes:
        reader: pairs of texts to logits.
        verdict: fitted on validation.
        config: the options of the run.
        form: its part of `qpairs.json`: its kind, and for an export how its graph is read.
        split: fingerprint and sizes of the parts, dropped pairs, leaks.
        scores: part -> report, as in `evaluation.Report.to_dict`.
        history: what training reported.
        versions: of the libraries, python and the machine, and the time of writing.
        path: the folder, which holds the weights.
    """

    reader: PairReader
    verdict: Verdict
    config: Config
    form: Mapping[str, Any]
    split: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    path: Path = Path()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of its logits, as stored in its folder."""
        return fingerprint(self.path)

    @property
    def one_tower(self) -> bool:
        """Whether both sides of a pair are read in the same way; a pair is read in both orders."""
        return True

    @property
    def dimension(self) -> int:
        """Numbers in a vector: there is none."""
        self._refuse()

    def encode(self, texts: Sequence[str], side: Side = "left") -> Floats:
        """Raises UserError: a cross-encoder has no vectors."""
        self._refuse()

    def embed_tables(self, questions: Sequence[str]) -> Tables:
        """Raises UserError: a cross-encoder has no vectors."""
        self._refuse()

    def score_tables(self, tables: Tables, pairs: Pairs) -> Floats:
        """Raises UserError: a cross-encoder has no vectors."""
        self._refuse()

    def score_pairs(self, pairs: Pairs, on_progress: OnProgress = ignore) -> tuple[Floats, None]:
        """Logits (n_pairs,) of the pairs, labelled or not; there are no vectors."""
        return read_pairs(self.reader, [pairs.texts(row) for row in range(len(pairs))], on_progress), None

    @functools.cached_property
    def token_counter(self) -> TokenCounter | None:
        """Counts the tokens of whole questions, of which a pair may have twice `max_length`."""
        if not (self.path / TOKENIZER).is_file():
            return None
        tokenizer = Tokenizer.from_file(str(self.path / TOKENIZER))
        return library_counter(tokenizer, longest=2 * self.config.max_length, of_pairs=True)

    def with_verdict(self, verdict: Verdict, scores: Mapping[str, Any]) -> CrossModel:
        """The same cross-encoder with another verdict."""
        return dataclasses.replace(self, verdict=verdict, scores=scores)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes the model into a folder that is whole or not there.

        Raises:
            UserError: the folder is not empty, is inside that of the model itself, or cannot be written.
        """
        with copied_folder(Path(path), self.path, overwrite=overwrite) as fresh:
            write_cross_model(self, fresh)

    predict = predict_pairs
    similarity = similarity_of
    dedupe = methods.dedupe
    search = methods.search
    _facts = methods.facts
    __repr__, _repr_html_ = one_line, html_card

    def _refuse(self) -> NoReturn:
        raise UserError(
            f"{self.path}: a cross-encoder reads two questions at once and has no vectors to search with; combine it "
            "with an encoder: qpairs combine ENCODER CROSS_ENCODER --output FOLDER"
        )


def write_cross_model(model: CrossModel, folder: Path) -> None:
    """Writes the `qpairs.json` of a cross-encoder whose weights are in the folder already."""
    write_model_file(folder, {**model.form, **model_to_dict(model)})


def open_cross_model(path: Path, data: Mapping[str, Any]) -> CrossModel:
    """The cross-encoder in a folder, from the content of its `qpairs.json`.

    Raises:
        UserError: its weights are missing or damaged, or its runtime is not installed.
    """
    return CrossModel(
        _open_reader(path, data),
        verdict_from_dict(data),
        config_from(data["config"], where=f"{path}/{FILE}"),
        {name: data[name] for name in ("kind", "reading", "source", "parity") if name in data},
        data["split"],
        data["scores"],
        data["history"],
        data["versions"],
        path,
    )


def _open_reader(path: Path, data: Mapping[str, Any]) -> PairReader:
    if data["kind"] == KINDS[0]:
        from qpairs.models.torch_pairs import open_torch_pairs

        return open_torch_pairs(path)
    from qpairs.models.pair_graph import PairReading, open_pair_graph

    return open_pair_graph(path, PairReading(**data["reading"]), data["kind"].removeprefix("cross-encoder-"))
