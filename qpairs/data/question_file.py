"""A file of questions, and how it is read: the options of every command that takes one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from qpairs.core.shell import option_words


class ReadingOptions(TypedDict):
    """How questions are read, as arguments of `embed` and `read_corpus`."""

    text_column: str
    id_column: str
    separator: str
    skip_bad_rows: bool


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions, and how it is read.

    Attributes:
        path: the file.
        text_column, id_column, skip_bad_rows, separator: as in `embed`.
    """

    path: Path
    text_column: str = ""
    id_column: str = ""
    skip_bad_rows: bool = False
    separator: str = ""

    @property
    def options(self) -> ReadingOptions:
        """How it is read.

        >>> QuestionFile(Path("tickets.csv"), "title").options
        {'text_column': 'title', 'id_column': '', 'separator': '', 'skip_bad_rows': False}
        """
        return {
            "text_column": self.text_column,
            "id_column": self.id_column,
            "separator": self.separator,
            "skip_bad_rows": self.skip_bad_rows,
        }

    def words(self, *, ids: bool = True) -> list[str]:
        """The options that say how it is read, in a command.

        Args:
            ids: whether the command reads ids, too.

        >>> QuestionFile(Path("tickets.csv"), "title,body", "ticket").words()
        ['--text-column', 'title,body', '--id-column', 'ticket']
        """
        return option_words(
            {
                "--text-column": self.text_column,
                "--id-column": self.id_column if ids else "",
                "--skip-bad-rows": self.skip_bad_rows,
                "--separator": self.separator.replace("\t", "tab"),
            }
        )

    def like(self, path: Path) -> QuestionFile:
        """Another file, read in the same way."""
        return replace(self, path=path)
