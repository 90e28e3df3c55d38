"""`qpairs serve`."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpairs.commands.search import IdColumnOption, TextColumnOption, print_outgrown
from qpairs.commands.terminal import ModelArgument, RerankerOption, counted, err, out, progress_bar, quiet
from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.files import os_reason

if TYPE_CHECKING:
    from qpairs.models.base import Model
    from qpairs.retrieval.index import Index

BACKLOG = 2048  # connections that wait to be accepted


def serve(
    checkpoint: ModelArgument,
    index: Annotated[
        Path | None, typer.Option(help="Folder of an index, made with this model.", show_default=False)
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help="File of questions to search in, instead of --index; its index is made on the way, in the folder with "
            "the file's name and -qpairs.",
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
        str, typer.Option(help="Your name, beside the labels you give; needs --labels.", show_default=False)
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="QPAIRS_TOKEN", help="Bearer token that requests must have.", show_default=False),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Site whose pages may ask, such as https://my.site; may be repeated.", show_default=False),
    ] = None,
    max_items: Annotated[int, typer.Option(min=1, help="Most pairs or questions in a request.")] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Most characters in a question.")] = 2000,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes in a request.")] = 1_000_000,
    queue: Annotated[int, typer.Option(min=1, help="Most waiting requests.")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, help="Most seconds until a request is answered.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, help="Texts to encode together; 1: each request alone.")] = 64,
    max_reads: Annotated[int, typer.Option(min=0, help="Most hits of a search that have a second look.")] = 64,
    reranker: RerankerOption = True,
) -> None:
    """Serve verdicts and searches over HTTP, with a page to search, compare and label, and the API at /docs."""
    if labels and not (index or questions):
        raise UserError("serve: --labels needs an index to take pairs from; name one with --index or --questions")
    if index and questions:
        raise UserError("serve: give --index or --questions, not both")
    if annotator and not labels:
        raise UserError("serve: --annotator is the name beside labels; say with --labels where these are kept")
    with quiet():
        try:
            from qpairs.serving.app import create_app
            from qpairs.serving.limits import Limits, run_server
            from qpairs.serving.origins import Origins, allowed_origins
        except ImportError as missing:
            raise UserError(f"serve needs {missing.name}: {install('fastapi')}") from None
        from qpairs.models.base import load
        from qpairs.retrieval.second_look import encoder_of
        from qpairs.serving.journal import journalled
        from qpairs.serving.label_file import LabelFile

        allowed = allowed_origins(allow_origin or ())
        model = load(checkpoint, second_look=reranker)
        encoder_of(model)  # what cannot search is refused before a port and an index are taken
        if questions:
            index = _indexed(model, questions, text_column, id_column)
        limits = Limits(max_body, max_items, max_characters, queue, timeout, batch, max_reads)
        with _listening(host, port) as listener, journalled(index) if index else contextlib.nullcontext() as opened:
            file = LabelFile(labels, annotator) if labels else None
            address, number = listener.getsockname()[:2]
            loopback = ipaddress.ip_address(address).is_loopback
            origins = Origins(allowed, loopback=loopback and not token)
            app = create_app(model, opened, limits=limits, token=token or None, origins=origins, labels=file)
            if not (token or loopback):
                err.print("[yellow]Whoever reaches this machine can search and change the index: set QPAIRS_TOKEN.[/]")
            about = counted(len(opened.questions), "question") if opened else "no index"
            host = f"[{address}]" if ":" in address else address
            out.print(
                f"{model.path.name}, {about}, at http://{host}:{number}", markup=False, highlight=False, soft_wrap=True
            )
            if opened:
                print_setting(opened, model)
            run_server(app, listener, limits)


def _indexed(model: Model, questions: Path, text_column: str, id_column: str) -> Path:
    """The folder of the index of a file, made if need be."""
    from qpairs.retrieval.index_file import QuestionFile, default_folder, index_file, index_folder

    folder = default_folder(questions)
    with progress_bar() as on_progress:
        index_file(model, QuestionFile(questions, text_column, id_column), folder, on_progress=on_progress)
    return index_folder(folder)


def print_setting(index: Index, model: Model) -> None:
    """Says what the verdicts of searches mean, and where the index should be built anew."""
    from qpairs.retrieval.search import setting_for
    from qpairs.retrieval.second_look import called_from

    setting = setting_for(index, model)
    out.print(
        f"Searches: probabilities are those {setting.precision_of}; duplicates {called_from(setting)}.",
        highlight=False,
        soft_wrap=True,
    )
    print_outgrown(index.manifest, len(index.questions))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot listen there ({os_reason(error)}); choose --host or --port") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an ACK
    with listener:
        yield listener
