"""The HTTP routes of labelling."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from qpairs.core.exceptions import UserError
from qpairs.evaluation.calibrate_corpus import CorpusFit
from qpairs.serving.bodies import STRICT, Name, Nothing
from qpairs.serving.label_pairs import Choice
from qpairs.serving.labelling import Answer, Labelling, LabelRequest, State
from qpairs.serving.refit import Known, known

log = logging.getLogger(__name__)


class AnswerRequest(BaseModel):
    """A person's answer: whether both questions ask the same; `choice` selected the pair, and selects the next."""

    model_config = ConfigDict(strict=True)
    question1: str
    question2: str
    answer: Answer
    choice: Choice = "stratified"
    annotator: Name | None = None


class UndoRequest(BaseModel):
    """How the next pair is chosen, and whose last answer is undone."""

    model_config = STRICT
    choice: Choice = "stratified"
    annotator: Name | None = None


def labelling_routes(labelling: Labelling, refit: Callable[[], CorpusFit]) -> APIRouter:
    """GET /labelling, POST /labelling/answer, /undo, /apply, GET /labelling/labels.csv.

    An answer to a pair that is not waiting for one is refused with 409; the application handles a UserError and a full
    queue.

    Args:
        labelling: the pairs and the answers.
        refit: fits the verdict to all labels, and lets the service use it.
    """
    router = APIRouter(prefix="/labelling", tags=["labelling"])

    @router.get("")
    def state(choice: Choice = "stratified", annotator: Name | None = None) -> State:
        """The labels so far, and the next pair."""
        return labelling.state(choice, annotator)

    @router.post("/answer")
    def answer(request: AnswerRequest) -> State:
        """Store the answer to a pair; it is on the disk before the response."""
        try:
            return labelling.answer(LabelRequest(**request.model_dump()))
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.post("/undo")
    def undo(request: UndoRequest) -> State:
        """Remove the last answer."""
        try:
            return labelling.undo(request.choice, request.annotator)
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.post("/apply")
    def apply(_: Nothing) -> Known:
        """Fit the verdict to all labels, and use it for all later requests, until the service stops."""
        try:
            return known(refit())
        except UserError as error:
            log.warning("%s", error)
            raise HTTPException(
                409,
                "the verdict cannot be fitted to these labels: label pairs from all scores, or see the log of "
                "the service",
            ) from None

    @router.get("/labels.csv", response_class=FileResponse)
    def labels() -> Any:
        """The labelled pairs, and how each was drawn, for `qpairs calibrate --labels` and `qpairs train --data`."""
        return FileResponse(labelling.path, media_type="text/csv", filename="labels.csv")

    return router
