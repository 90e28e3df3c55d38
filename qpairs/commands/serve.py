"""`qpairs serve`."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpairs.commands.conclusions import after_serve
from qpairs.commands.search import IdColumnOption, TextColumnOption, print_outgrown
from qpairs.commands.terminal import (
    ModelArgument,
    RerankerOption,
    counted,
    err,
    out,
    plain,
    print_conclusion,
    progress_bar,
    quiet,
    shown_path,
)
from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.files import os_reason
from qpairs.data.question_file import QuestionFile

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from qpairs.models.base import Model
    from qpairs.retrieval.index import Index
    from qpairs.serving.label_file import LabelFile
    from qpairs.serving.start import Session

BACKLOG = 2048  # connections that wait to be accepted


def serve(
    checkpoint: ModelArgument,
    index: Annotated[
        Path | None, typer.Option(help="Folder of an index, made with this model.", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="File of questions to search in, instead of --index; its page does what qpairs start does. "
            "Everything is kept in the folder named after the file, plus -qpairs.",
            show_default=False,
        ),
    ] = None,
    text_column: TextColumnOption = "",
    id_column: IdColumnOption = "",
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV file for labels given on the page; needs --index or --questions.", show_default=False),
    ] = None,
    annotator: Annotated[
        str,
        typer.Option(
            help="Annotator name to store with your labels; the page asks others for theirs.", show_default=False
        ),
    ] = "",
    clusters: Annotated[
        Path | None, typer.Option(help="Folder that qpairs dedupe wrote, to correct its clusters.", show_default=False)
    ] = None,
    url_template: Annotated[
        str, typer.Option(help="Address of a question, such as https://my.site/q/{id}.", show_default=False)
    ] = "",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse every change to the index, labels and clusters.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="QPAIRS_TOKEN", help="Bearer token that requests must have.", show_default=False),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Site whose pages may send requests (CORS), such as https://my.site; may be repeated.",
            show_default=False,
        ),
    ] = None,
    max_items: Annotated[int, typer.Option(min=1, help="Most pairs or questions in a request.")] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Most characters in a question.")] = 2000,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes in a request.")] = 1_000_000,
    max_upload: Annotated[
        int,
        typer.Option(min=0, help="Most bytes of a file sent from the page, without --index or --questions; 0: none."),
    ] = 100_000_000,
    uploads: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the files sent from the page, and of their results.  [default: qpairs-uploads; no files "
            "are accepted if anybody may send requests]",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Most waiting requests.")] = 1024,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Longest time until a request is answered, in seconds.")
    ] = 10.0,
    batch: Annotated[int, typer.Option(min=1, help="Most texts to encode together; 1: each request alone.")] = 64,
    max_reads: Annotated[int, typer.Option(min=0, help="Most hits of a search that get a second look.")] = 64,
    reranker: RerankerOption = True,
) -> None:
    """Serve verdicts and searches over HTTP, with a page to search, compare and label, and the API at /docs."""
    if index and questions:
        raise UserError("serve: give --index or --questions, not both")
    if clusters and questions:
        raise UserError("serve: --questions uses the clusters in the folder of the file; leave out --clusters")
    if labels and read_only:
        raise UserError("serve: --read-only refuses every change, labels too; leave out --labels or --read-only")
    with quiet(), contextlib.ExitStack() as held:
        from qpairs.models.base import load

        try:
            from qpairs.serving.app import create_app
            from qpairs.serving.limits import Limits, run_server
            from qpairs.serving.links import check_url_template
            from qpairs.serving.origins import Origins, allowed_origins
        except ImportError as missing:
            raise UserError(f"serve needs {missing.name}: {install('fastapi')}") from None

        allowed = allowed_origins(allow_origin or ())
        if url_template:
            check_url_template(url_template)
        listener = held.enter_context(_listening(host, port))  # before a model is loaded, which takes long
        file = QuestionFile(questions, text_column, id_column) if questions else None
        labelling = _Labelling(labels, annotator)
        served = _opened(held, load(checkpoint, second_look=reranker), index or file, labelling)
        if clusters:
            _hold_clusters(held, clusters)
        address, number = listener.getsockname()[:2]
        loopback = ipaddress.ip_address(address).is_loopback
        takes_files = max_upload > 0 and not (index or questions or clusters or read_only)
        takes_files = takes_files and bool(uploads or token or loopback)
        limits = Limits(max_body, max_items, max_characters, queue, timeout, batch, max_reads, max_upload)
        make = functools.partial(
            create_app,
            limits=limits,
            token=token or None,
            origins=Origins(allowed, loopback=loopback and not token),
            url_template=url_template,
            read_only=read_only,
        )
        app: ASGIApp
        if takes_files:
            from qpairs.serving.uploads import with_uploads

            folder = uploads or Path("qpairs-uploads")
            app = with_uploads(served.model, folder, make, limit=max_upload, annotator=annotator)
        else:
            app = make(served.model, served.index, labels=served.labels, session=served.session, clusters=clusters)
        if not (token or loopback):
            may = "ask this service" if read_only else "send files" if takes_files else "search and change the index"
            err.print(f"[yellow]Whoever reaches this machine can {may}: set QPAIRS_TOKEN.[/]")
        _print_served(served, f"http://{f'[{address}]' if ':' in address else address}:{number}")
        how = {"session": bool(served.session), "read_only": read_only, "takes_files": takes_files}
        print_conclusion(after_serve(served.index is not None, labels, checkpoint, **how))
        run_server(app, listener, limits)


@dataclass(frozen=True)
class _Served:
    """What is served: a model, and optionally an index, a file of labels, and a session."""

    model: Model
    index: Index | None = None
    labels: LabelFile | None = None
    session: Session | None = None


@dataclass(frozen=True)
class _Labelling:
    """The file of the labels given on the page, and the annotator's name; each as the option of that name."""

    labels: Path | None
    annotator: str


def _opened(
    held: contextlib.ExitStack, model: Model, searched: Path | QuestionFile | None, labelling: _Labelling
) -> _Served:
    """Opens what is served until the service ends: the folder of an index, or a file of questions."""
    from qpairs.retrieval.second_look import encoder_of
    from qpairs.serving.journal import journalled
    from qpairs.serving.label_file import LabelFile

    encoder_of(model)  # what cannot search is refused before an index is taken
    labels, annotator = labelling.labels, labelling.annotator
    if not isinstance(searched, QuestionFile):
        opened = held.enter_context(journalled(searched)) if searched else None
        return _Served(model, opened, LabelFile(labels, annotator) if labels else None)
    from qpairs.commands.start import text_column_of
    from qpairs.retrieval.index_file import default_folder
    from qpairs.serving.start import open_session

    file = replace(searched, text_column=searched.text_column or text_column_of(searched.path))
    folder = default_folder(file.path)
    with progress_bar() as on_progress:
        how: Any = {"labels": labels, "annotator": annotator, "serve": True, "on_progress": on_progress}
        session = held.enter_context(open_session(model, file, folder, **how))
    return _Served(session.judge, session.index, None, session)


def _print_served(served: _Served, address: str) -> None:
    """Says what is served, where, and what its verdicts mean."""
    about = counted(len(served.index.questions), "question") if served.index else "no index"
    where = f"{shown_path(served.model.path.name)}, {about}, at {plain(address)}"
    out.print(where, highlight=False, soft_wrap=True)
    if served.index:
        print_setting(served.index, served.model)
    if served.session:
        print_judged(served.session)


def _hold_clusters(held: contextlib.ExitStack, clusters: Path) -> None:
    from qpairs.core.files import exclusive_lock
    from qpairs.retrieval.corpus import SUMMARY

    if not (clusters / SUMMARY).is_file():
        raise UserError(f"{clusters}: no duplicates; name the folder that qpairs dedupe wrote")
    held.enter_context(exclusive_lock(clusters))


def print_setting(index: Index, model: Model) -> None:
    """Says what the verdicts of searches mean, and if the index should be rebuilt."""
    from qpairs.retrieval.search import setting_for
    from qpairs.retrieval.second_look import called_from

    setting = setting_for(index, model)
    out.print(
        f"Searches: probabilities are those {plain(setting.precision_of)}; duplicates {called_from(setting)}.",
        highlight=False,
        soft_wrap=True,
    )
    print_outgrown(index.manifest, len(index.questions))


def print_judged(session: Session) -> None:
    """Says on which earlier answers the verdict is based."""
    if labels := session.known.labels:
        out.print(
            f"The verdict is based on {counted(labels, 'answer')} in {shown_path(session.folder.labels)}.",
            highlight=False,
            soft_wrap=True,
        )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(
            f"{host}:{port}: cannot listen on this address ({os_reason(error)}); choose another --host or --port"
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an ACK
    with listener:
        yield listener
