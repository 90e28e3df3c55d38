"""The labelled pairs that options name: how they are read, and the options that name them in a next command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpairs.commands.shared_options import shared_words
from qpairs.core.shell import option_words

if TYPE_CHECKING:
    from qpairs.config import Config
    from qpairs.data.pairs import Pairs
    from qpairs.models.base import Model


@dataclass(frozen=True)
class NamedPairs:
    """Labelled pairs, as named by the options of a command.

    Attributes:
        data: their sources.
        columns: as in `--columns`.
        labels: as in `--labels`; `qpairs calibrate` calls it `--label-values`.
        label_cut: as in `--label-cut`.
        skip_bad_rows: as in `--skip-bad-rows`.
    """

    data: Sequence[str] = ()
    columns: str = ""
    labels: str = ""
    label_cut: float | None = None
    skip_bad_rows: bool = False

    def load(self) -> Pairs:
        """The pairs.

        Raises:
            UserError: they cannot be read.
        """
        from qpairs.data.sources import load_pairs

        return load_pairs(
            list(self.data),
            columns=split_columns(self.columns),
            labels=self.labels,
            label_cut=self.label_cut,
            skip_bad_rows=self.skip_bad_rows,
        )

    def words(self, labels: str = "--labels") -> list[str]:
        """The options that name them in another command.

        Args:
            labels: what that command calls the option for what labels mean.

        >>> NamedPairs(["mine.csv"], columns="a,b,same").words()
        ['--data', 'mine.csv', '--columns', 'a,b,same']
        """
        return [*option_words({"--data": list(self.data)}), *self.reading_words(labels)]

    def reading_words(self, labels: str = "--labels") -> list[str]:
        """The options that say how they are read."""
        how = {
            "--columns": self.columns,
            labels: self.labels,
            "--label-cut": self.label_cut,
            "--skip-bad-rows": self.skip_bad_rows,
        }
        return [*option_words(how), *shared_words()]

    def like(self, source: str) -> NamedPairs:
        """Pairs of another source that are read in the same way."""
        return replace(self, data=(source,))


def pairs_of_run(config: Config) -> NamedPairs:
    """The pairs that a model was trained on, as a command names them.

    >>> from qpairs.config import Config
    >>> pairs_of_run(Config(data="mine.csv", labels="yes=1,no=0")).words()
    ['--data', 'mine.csv', '--labels', 'yes=1,no=0']
    """
    columns, labels = ",".join(config.columns), ",".join(config.labels)
    return NamedPairs(config.data, columns, labels, config.label_cut, config.skip_bad_rows)


def split_columns(columns: str) -> tuple[str, ...]:
    """The names in `--columns`."""
    return tuple(name.strip() for name in columns.split(",")) if columns else ()


@dataclass(frozen=True)
class JudgedPairs:
    """The pairs that a command evaluates a model on, their name, and the training pairs if known."""

    pairs: Pairs
    source: str
    trained_on: Pairs | None


def judged_pairs(model: Model, named: NamedPairs, what: str) -> JudgedPairs:
    """The labelled pairs that are named, or those that a model was tested on; for all commands that evaluate.

    Args:
        model: that is evaluated.
        named: the pairs; without a source, those that the model was tested on.
        what: the command.

    Raises:
        UserError: they are not available to `what`, the command, or have only one label.
    """
    from qpairs.data.pairs import need_both_labels
    from qpairs.evaluation.sources import source_names, tested_on, training_pairs_of
    from qpairs.models.ready import shown_name

    model.verdict.require_labelled(shown_name(model))
    if named.data:
        pairs, source = named.load(), source_names(named.data)
        trained_on = training_pairs_of(model)
    else:
        pairs, source, trained_on = tested_on(model, what)
    need_both_labels(pairs, what)
    return JudgedPairs(pairs, source, trained_on)
