"""`qpairs start`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpairs.commands.dedupe import print_pair, print_summary
from qpairs.commands.keys import discard_keys, read_key
from qpairs.commands.search import IdColumnOption, TextColumnOption
from qpairs.commands.shared_options import shared_words
from qpairs.commands.terminal import (
    SkipOption,
    counted,
    out,
    plain,
    print_command,
    print_skipped,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.exceptions import UserError
from qpairs.core.shell import option_words

if TYPE_CHECKING:
    from qpairs.data.text_columns import TextColumns
    from qpairs.serving.labelling import State
    from qpairs.serving.start import Session

MODEL, BUDGET = "minilm", 60  # unless others are named
KEYS = "[bold]y[/] same   [bold]n[/] different   [bold]s[/] skip   [bold]u[/] undo   [bold]q[/] finish"
SAID = {"y": "same", "n": "different", "s": "skipped", "u": "taken back"}
END = ("\x04", "\x1a", "")  # of the input: Ctrl-D, Ctrl-Z, and of a pipe


def start(
    questions: Annotated[Path, typer.Argument(help="Questions: .csv .tsv .jsonl .parquet, or .txt with one per line.")],
    model: Annotated[
        str,
        typer.Option(help="minilm, mpnet, a Hub id, or the folder of a SentenceTransformer or of a model you trained."),
    ] = MODEL,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the session.  [default: the name of the file, with -qpairs]", show_default=False),
    ] = None,
    text_column: TextColumnOption = "",
    id_column: IdColumnOption = "",
    annotator: Annotated[str, typer.Option(help="Your name, stored with your answers.", show_default=False)] = "",
    budget: Annotated[
        int, typer.Option(min=1, help="Number of answers, including earlier ones, after which the session finishes.")
    ] = BUDGET,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the pairs.")] = 0,
    skip_bad_rows: SkipOption = False,
) -> None:
    """Find the duplicates in a file of unlabelled questions: label some pairs, and get a calibrated model.

    The same command resumes a stopped session. Answers are single keys in a terminal, otherwise lines of the input.
    """
    from qpairs.data.question_file import QuestionFile
    from qpairs.retrieval.index_file import default_folder

    folder = output or default_folder(questions)
    with quiet():
        try:
            from qpairs.serving.start import open_session
        except ModuleNotFoundError as missing:
            from qpairs.core.extras import install

            raise UserError(f"start needs {missing.name}: {install(missing.name or '')}") from None
        file = QuestionFile(questions, text_column or text_column_of(questions), id_column, skip_bad_rows)
        with contextlib.ExitStack() as held:
            with progress_bar() as on_progress:
                how: Any = {"annotator": annotator, "seed": seed, "on_progress": on_progress}
                session = held.enter_context(open_session(model, file, folder, **how))
            print_skipped(session.corpus)
            _print_expected(session)
            try:
                _ask(session, budget)
            except KeyboardInterrupt:
                out.print("\nThe answers are kept; the same command resumes from them.")
                raise
            with progress_bar() as on_progress:
                found = session.finish(on_progress)
    options = {
        "--model": model if model != MODEL else "",
        "--output": str(output or ""),
        "--annotator": annotator,
        "--seed": seed or None,
    }
    out.print()
    print_summary(found)
    _print_end(session)
    words = [questions, *file.words(), *option_words(options), *shared_words()]
    more = budget if session.answers < budget else max(budget, session.answers) + session.known.more
    if session.state.pair:
        out.print("\nTo answer more:")
        print_command("qpairs", "start", *words, *option_words({"--budget": more if more != BUDGET else None}))
    _print_plain_commands(session)


def text_column_of(questions: Path) -> str:
    """The column of the questions: reported if it is certain, asked for if not."""
    from qpairs.data.text_columns import text_columns

    found = text_columns(questions)
    first = found.columns[0]
    if found.sure:
        out.print(f"Reading the column [bold]{plain(first.name)}[/] (another: --text-column).", highlight=False)
        return first.name
    if not sys.stdin.isatty():
        names = ", ".join(column.name for column in found.columns)
        raise UserError(f"{questions}: which column holds the questions? It may be {names}; name it with --text-column")
    return _chosen(found)


def _chosen(found: TextColumns) -> str:
    out.print("Which column holds the questions? Several are joined, such as 1,2.")
    for number, column in enumerate(found.columns, 1):
        out.print(f"  [bold]{number}[/]  {plain(column.name)}  [dim]{plain(column.example[:80])}[/]", highlight=False)
    while True:
        answer = typer.prompt("number", default="1")
        places = [int(part) - 1 for part in answer.split(",") if part.strip().isdigit()]
        if places and all(0 <= place < len(found.columns) for place in places):
            return ",".join(found.columns[place].name for place in places)


def _print_expected(session: Session) -> None:
    """What is expected now, with examples."""
    from qpairs.serving.start import EXAMPLES, examples

    folder = shown_path(session.folder.path)
    before = f"; {_answers(session)} so far" if session.state.last else ""
    questions = counted(len(session.corpus.texts), "question")
    out.print(f"\n{questions}, kept in [bold]{folder}[/]{before}.", highlight=False)
    _print_fit(session)
    try:
        pairs = examples(session.duplicates(), EXAMPLES)
    except UserError as error:  # far too many pairs, as far as is known without labels
        out.print(f"[yellow]No examples yet: {plain(str(error))}[/]", highlight=False)
        return
    if len(pairs):
        out.print("\n[bold]from the most to the least certain[/]  [dim]similarity, probability[/]", highlight=False)
    for pair in pairs.itertuples():
        print_pair(pair)


def _print_fit(session: Session) -> None:
    known = session.known
    if known.pairs < 1:
        out.print(
            f"[bold]No pair[/] is more likely a duplicate than not, {plain(known.basis)}: answer some for a "
            "better estimate."
        )
        return
    (low, high), (low_recall, high_recall) = known.precision_interval, known.recall_interval
    out.print(
        f"[bold]{known.pairs:,.0f} pairs[/] are called duplicates, at a similarity of at least {known.threshold:.3f}. "
        f"Expected precision, the share of them that are duplicates: [bold]{known.precision:.2f}[/] ({low:.2f} to "
        f"{high:.2f}). Expected recall, the share of all duplicates in the file that are among them: "
        f"[bold]{known.recall:.2f}[/] ({low_recall:.2f} to {high_recall:.2f}). All of this is {plain(known.basis)}; "
        f"intervals are 95 %. {known.more} more answers would narrow the interval of the precision from a width of "
        f"{known.width:.2f} to {known.width_with_more:.2f}.",
        highlight=False,
    )


def _answers(session: Session) -> str:
    """How many answers there are, of each kind."""
    state = session.state
    return (
        f"{counted(session.answers, 'answer')} ({state.duplicates:,} the same, {state.different:,} different) and "
        f"{state.skipped:,} skipped"
    )


def _ask(session: Session, budget: int) -> None:
    """Asks for answers until there are enough, none is left, or the person finishes."""
    read = _reader()
    if session.answers < budget:
        out.print(f"\nDo both ask the same? {KEYS}", highlight=False)
    else:
        out.print(f"\nNo pairs are asked: --budget {budget:,} is reached.", highlight=False)
    state = session.state
    while session.answers < budget and state.pair:
        _print_pair(state, budget)
        key = read()
        if key == "q" or key in END:
            break
        _act(session, state, key)
        state = session.state
    if sys.stdin.isatty():
        discard_keys()  # those typed ahead would be read by the shell


def _act(session: Session, state: State, key: str) -> None:
    """Carries out the action of a key."""
    fitted = False
    if key not in SAID or not state.pair:
        named = plain(repr(key)) if key.isprintable() else "This key"
        out.print(f"[yellow]{named} is not an answer.[/] {KEYS}", highlight=False)
        return
    if key == "u":
        try:
            session.undo()
        except LookupError as error:
            out.print(f"[yellow]{plain(str(error))}[/]")
            return
    elif key == "s":
        session.answer(state.pair, "skip")
    else:
        fitted = session.answer(state.pair, "yes" if key == "y" else "no")
    out.print(f"[dim]{SAID[key]}[/]")
    if fitted:
        out.print()
        _print_fit(session)


def _print_pair(state: State, budget: int) -> None:
    number = f"{state.duplicates + state.different + 1:,} of {budget:,}"
    if state.pair:
        out.print(f"\n[dim]{number}[/]  {plain(state.pair.question1)}", highlight=False, soft_wrap=True)
        out.print(f"{' ' * len(number)}  {plain(state.pair.question2)}", highlight=False, soft_wrap=True)


def _reader() -> Callable[[], str]:
    """Reads one answer: a key in a terminal, otherwise the first letter of a non-blank line; '' at the end."""
    if sys.stdin.isatty():
        return read_key

    def line() -> str:
        text: str
        for text in iter(sys.stdin.readline, ""):
            if text.strip():
                return text.strip()[0].lower()
        return ""

    return line


def _print_end(session: Session) -> None:
    folder = session.folder
    out.print(
        f"\n{_answers(session)}. Model in [bold]{shown_path(folder.model)}[/], duplicates and the file without them in "
        f"[bold]{shown_path(folder.duplicates)}[/].",
        highlight=False,
        soft_wrap=True,
    )
    if not session.state.pair:
        out.print("No pair is left to ask about.")
    if session.mostly_wrong:
        out.print(
            "[yellow]Most of the pairs called duplicates are expected to be wrong, so do not use the file without "
            "duplicates yet: answer more, or choose a --threshold from the expected figures:[/]"
        )
        print_command(*session.dedupe_command(shared_words(), "--dry-run"))
    if session.training_may_pay:
        out.print("There are enough labels of both kinds to train on; use the last command below.")


def _print_plain_commands(session: Session) -> None:
    from qpairs.retrieval.index_file import index_folder

    out.print("\nTo search with this model:")
    print_command(
        "qpairs", "search", index_folder(session.folder.path), "How do I ...?", "--model", session.folder.model
    )
    out.print("\n[dim]The same with single commands:[/]")
    for words in session.commands(shared_words()):
        print_command(*words)
