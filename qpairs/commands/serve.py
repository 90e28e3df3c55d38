"""`qpairs serve`."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from qpairs.commands.terminal import err, out, quiet
from qpairs.core.exceptions import UserError
from qpairs.core.files import os_reason

BACKLOG = 2048  # connections that wait to be accepted


def serve(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a checkpoint or, several times as fast, of an export of it.")
    ],
    index: Annotated[
        Path | None, typer.Option(help="Index to search and add to, of this very model.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV file that the labels given on the page are kept in; needs --index.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="QPAIRS_TOKEN", help="Bearer token that requests must have.", show_default=False),
    ] = None,
    max_items: Annotated[int, typer.Option(min=1, help="Pairs or questions in a request.")] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters in a question.")] = 2000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes in a request.")] = 1_000_000,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, help="Texts that are encoded together; 1: each request alone.")] = 64,
) -> None:
    """Serve verdicts and searches over HTTP, with a page to search, compare and label; its API is at /docs."""
    if labels and not index:
        raise UserError("serve: --labels needs an index to take pairs from; name one with --index")
    with quiet():
        try:
            from qpairs.serving.app import create_app
            from qpairs.serving.limits import Limits, run
        except ImportError as missing:
            raise UserError(f"serve: {missing.name} is not installed: pip install 'qpairs[serve]'") from None
        from qpairs.models.base import load
        from qpairs.serving.journal import journalled

        model = load(checkpoint)
        limits = Limits(max_body, max_items, max_characters, queue, timeout, batch)
        with _listening(host, port) as listener, journalled(index) if index else contextlib.nullcontext() as opened:
            app = create_app(model, opened, limits=limits, token=token or None, labels=labels)
            address, number = listener.getsockname()[:2]
            if not (token or ipaddress.ip_address(address).is_loopback):
                err.print("[yellow]Whoever reaches this machine may ask and add questions: set QPAIRS_TOKEN.[/]")
            about = f"{len(opened.questions):,} questions" if opened else "no index"
            host = f"[{address}]" if ":" in address else address
            out.print(
                f"{model.path.name}, {about}, at http://{host}:{number}", markup=False, highlight=False, soft_wrap=True
            )
            run(app, listener, limits)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot listen there ({os_reason(error)}); choose --host or --port") from None
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # or each answer waits 40 ms for the client's receipt
    with listener:
        yield listener
