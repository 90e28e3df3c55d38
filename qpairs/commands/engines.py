"""Options for what runs the jobs of a command: this process, or a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from qpairs.core.exceptions import UserError, nearest

ENGINES = ("plain", "ray")

EngineOption = Annotated[str, typer.Option(help="plain: this process; ray: the workers of a Ray cluster.")]
RayAddressOption = Annotated[
    str, typer.Option(help="Address of the Ray cluster, such as auto; without it, one is started on this machine.")
]


def check_engine(engine: str) -> None:
    """Raises UserError for an unknown engine."""
    if engine not in ENGINES:
        raise UserError(f"engine: unknown {engine!r}; {nearest(engine, ENGINES)}")
