"""The HTTP routes of the clusters that dedupe found."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from qpairs.serving.bodies import STRICT, Nothing
from qpairs.serving.cluster_files import EDITED, SourceChanged, deduplicated_file
from qpairs.serving.clusters import ClusterReview, Clusters, Order, ReviewedFolder

log = logging.getLogger(__name__)

MOST = 100  # clusters on a page
LONGEST = 200  # characters of a text to look for


class RepresentRequest(BaseModel):
    """The cluster, by the row of its representative, and the row of its new representative."""

    model_config = STRICT
    cluster: int
    row: int


class SplitRequest(BaseModel):
    """The cluster, and the rows of the members that leave it."""

    model_config = STRICT
    cluster: int
    rows: Annotated[list[int], Field(min_length=1)]


class MergeRequest(BaseModel):
    """Two clusters; the representative of the first stays."""

    model_config = STRICT
    cluster: int
    other: int


class Changed(BaseModel):
    """The number of changes, all stored on the disk."""

    changes: int


class Exported(BaseModel):
    """The folder of the corrected files, and their names."""

    folder: str
    files: list[str]


def cluster_routes(reviewed: ReviewedFolder, *, read_only: bool = False) -> APIRouter:
    """GET /clusters, POST /clusters/represent, /split, /merge, /undo, /export, GET /clusters/files/{name}.

    A change that the clusters do not allow is refused with 409; the application handles a UserError.

    Args:
        reviewed: the clusters.
        read_only: whether to leave out the routes that change something.
    """
    router = APIRouter(prefix="/clusters", tags=["clusters"])

    @router.get("")
    def clusters(
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
        text: Annotated[str, Query(max_length=LONGEST)] = "",
        order: Order = "doubt",
    ) -> Clusters:
        """Some clusters with all corrections: those with the least similar members first, or the largest first."""
        with _review(reviewed) as review:
            return review.page(offset, limit, text, order)

    @router.get("/files/{name}", response_class=FileResponse)
    def file(name: str) -> Any:
        """A file that was exported."""
        known = {path.name: path for path in (reviewed.folder / EDITED).glob("*.*")}
        if name not in known:
            raise HTTPException(404, "no such file; export first")
        return FileResponse(known[name], filename=name)

    if not read_only:
        _add_changes(router, reviewed)
    return router


def _add_changes(router: APIRouter, reviewed: ReviewedFolder) -> None:
    @router.post("/represent")
    def represent(body: RepresentRequest) -> Changed:
        """Let another member represent a cluster; the change is on the disk before the response."""
        return _change(reviewed, lambda review: review.represent(body.cluster, body.row))

    @router.post("/split")
    def split(body: SplitRequest) -> Changed:
        """Take members out of a cluster; together they form a new one."""
        return _change(reviewed, lambda review: review.split(body.cluster, body.rows))

    @router.post("/merge")
    def merge(body: MergeRequest) -> Changed:
        """Merge two clusters."""
        return _change(reviewed, lambda review: review.merge(body.cluster, body.other))

    @router.post("/undo")
    def undo(_: Nothing) -> Changed:
        """Undo the last change."""
        return _change(reviewed, ClusterReview.undo)

    @router.post("/export")
    def export(_: Nothing) -> Exported:
        """Write the current clusters, and the file without duplicates according to them."""
        try:
            with _review(reviewed) as review:
                made = review.export()
        except SourceChanged as error:
            log.warning("%s", error)
            name = deduplicated_file(reviewed.folder).name  # its folder is for the log, not for whoever asks
            raise HTTPException(
                409,
                f"{name}, which was deduplicated, is gone or has changed; the log has its path",
            ) from None
        return Exported(folder=str(made[0].parent), files=[path.name for path in made])


@contextmanager
def _review(reviewed: ReviewedFolder) -> Iterator[ClusterReview]:
    with ExitStack() as held:
        try:
            review = held.enter_context(reviewed.review())
        except LookupError as error:
            raise HTTPException(404, str(error)) from None
        yield review


def _change(reviewed: ReviewedFolder, act: Callable[[ClusterReview], None]) -> Changed:
    with _review(reviewed) as review:
        try:
            act(review)
        except LookupError as error:
            raise HTTPException(409, str(error.args[0])) from None
        return Changed(changes=review.changes)
