"""The HTTP routes of files that are sent to the page of `qpairs start`."""

from collections.abc import Callable, Iterator
from typing import Any

from anyio import from_thread
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel

from qpairs.core.exceptions import UserError
from qpairs.serving.bodies import STRICT
from qpairs.serving.uploads import Uploads, UploadState, safe_name

FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class ColumnsRequest(BaseModel):
    """The separator of the fields of a .csv or .tsv file: one character, or tab; '' detects it."""

    model_config = STRICT
    separator: str = ""


class OpenRequest(ColumnsRequest):
    """The columns of the questions and of their ids, and whether rows that cannot be used are left out."""

    text_column: str
    id_column: str = ""
    skip_bad_rows: bool = False


def upload_routes(uploads: Uploads) -> APIRouter:
    """GET /start/upload, PUT /start/upload/{name}, POST /start/columns, POST /start/open."""
    router = APIRouter(prefix="/start", tags=["start"])

    @router.get("/upload")
    def state() -> UploadState:
        """The progress of the last file that was sent, and its columns."""
        return uploads.state()

    @router.put("/upload/{name}", status_code=202, openapi_extra=FILE)
    def upload(name: str, request: Request) -> UploadState:
        """Send a file of questions, as the body; it is kept in a folder of the service, and its columns are read."""
        parts = _parts(request)
        try:
            return uploads.put(_named(name), parts)
        except (HTTPException, LookupError) as error:
            for _ in parts:  # or its sender would not read the response
                pass
            raise error if isinstance(error, HTTPException) else HTTPException(409, str(error)) from None

    @router.post("/columns", status_code=202)
    def columns(request: ColumnsRequest) -> UploadState:
        """Read the columns of the file again, with another separator; GET /start/upload returns them."""
        return _begun(lambda: uploads.read(request.separator))

    @router.post("/open", status_code=202)
    def open_file(request: OpenRequest) -> UploadState:
        """Start to embed and index the file; GET /start/upload has the progress, and then GET /start answers.

        The texts of several columns, separated by commas in `text_column`, are joined.
        """
        how: dict[str, Any] = {"separator": request.separator, "skip_bad_rows": request.skip_bad_rows}
        return _begun(lambda: uploads.open(request.text_column, request.id_column, **how))

    return router


def _begun(begin: Callable[[], UploadState]) -> UploadState:
    try:
        return begin()
    except LookupError as error:
        raise HTTPException(409, str(error)) from None


def _named(name: str) -> str:
    try:
        return safe_name(name)
    except UserError as error:
        raise HTTPException(422, str(error)) from None


def _parts(request: Request) -> Iterator[bytes]:
    """The body as it arrives, for a thread that FastAPI has begun."""
    stream = request.stream()
    while True:
        try:
            yield from_thread.run(stream.__anext__)
        except StopAsyncIteration:
            return
