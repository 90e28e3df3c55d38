"""The HTTP routes of the page of `qpairs start`."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel

from qpairs.serving.bodies import STRICT, Name
from qpairs.serving.labelling import Answer, Pair
from qpairs.serving.start_page import MODEL_ZIP, StartPage, StartState


class NamedRequest(BaseModel):
    """The annotator; without a name, that of the service."""

    model_config = STRICT
    annotator: Name | None = None


class AnswerRequest(NamedRequest):
    """A person's answer: whether both questions ask the same."""

    question1: str
    question2: str
    answer: Answer


def start_routes(page: StartPage) -> APIRouter:
    """GET /start, POST /start/answer, POST /start/undo, POST /start/finish, GET /start/files/{name}."""
    router = APIRouter(prefix="/start", tags=["start"])

    @router.get("")
    def state(annotator: Name | None = None) -> StartState:
        """The session: what is known about the duplicates, and the next pair."""
        return page.state(annotator)

    @router.post("/answer")
    def answer(request: AnswerRequest) -> StartState:
        """Store the answer to a pair; after every ten, the service uses a verdict fitted to the answers."""
        pair = Pair(request.question1, request.question2)
        return _done(lambda: page.answer(pair, request.answer, request.annotator))

    @router.post("/undo")
    def undo(request: NamedRequest) -> StartState:
        """Undo the last answer."""
        return _done(lambda: page.undo(request.annotator))

    @router.post("/finish", status_code=202)
    def finish(request: NamedRequest) -> StartState:
        """Start to write the calibrated model and the file without duplicates; GET /start has the progress."""
        return _done(lambda: page.finish(request.annotator))

    @router.get("/files/{name}", response_class=FileResponse)
    def file(name: str) -> Any:
        """A file that was written: kept.csv, pairs.csv, clusters.csv, labels.csv, or model.zip."""
        if name == MODEL_ZIP:
            return _model(page)
        try:
            return FileResponse(page.file(name), filename=name)
        except LookupError as error:
            raise HTTPException(404, str(error)) from None

    return router


def _model(page: StartPage) -> StreamingResponse:
    try:
        parts = page.model_zip()
    except LookupError as error:
        raise HTTPException(409, str(error)) from None
    headers = {"content-disposition": f'attachment; filename="{MODEL_ZIP}"'}
    return StreamingResponse(parts, media_type="application/zip", headers=headers)


def _done(act: Callable[[], StartState]) -> StartState:
    try:
        return act()
    except LookupError as error:
        raise HTTPException(409, str(error)) from None
