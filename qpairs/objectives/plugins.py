"""Losses of installed packages: entry points of the group `qpairs.losses`.

A package that declares, in its pyproject.toml,

    [project.entry-points."qpairs.losses"]
    hinge = "my_package.losses:hinge"

adds the loss `hinge`: a `LossEntry`, or a function (sim, Relation) -> scalar. The entry point may also be a module
that adds rows to `LOSSES`, `MINERS` and the other tables itself.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType

from qpairs.core.exceptions import UserError
from qpairs.core.imports import import_all

log = logging.getLogger(__name__)

GROUP = "qpairs.losses"


def register_custom(imports: Iterable[str] = ()) -> None:
    """Adds the user's own losses, miners and other rows: from the modules to import, and from installed packages.

    Args:
        imports: as in `import_all`.

    Raises:
        UserError: as `import_all`.
    """
    import_all(imports)
    _add_entry_points()


@functools.cache
def _add_entry_points() -> None:
    """Adds the losses of installed packages, once per process; one that cannot be loaded is left out."""
    for point in entry_points(group=GROUP):
        from qpairs.objectives.losses import LOSSES, LossEntry  # which imports torch

        try:
            found = point.load()
            if isinstance(found, ModuleType):
                continue
            if point.name in LOSSES:
                raise UserError("a loss of that name exists already")
            if not callable(found):
                raise UserError("it is not a loss: neither a LossEntry, nor a function (sim, Relation) -> scalar")
            LOSSES[point.name] = found if isinstance(found, LossEntry) else LossEntry(found, in_batch=True)
        except Exception as error:
            log.warning("the loss %r of the package %s is left out: %s", point.name, point.value, error)
