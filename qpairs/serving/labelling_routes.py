"""The HTTP routes of labelling."""

from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from qpairs.serving.label_pairs import Choice
from qpairs.serving.labelling import Labelling, LabelRequest, State


class UndoRequest(BaseModel):
    """How the pair that comes next is chosen."""

    model_config = ConfigDict(strict=True, extra="forbid")
    choice: Choice = "stratified"


def labelling_routes(labelling: Labelling) -> APIRouter:
    """GET /labelling, POST /labelling/answer, POST /labelling/undo, GET /labelling/labels.csv.

    An answer to a pair that does not wait for one is refused with 409; the application handles a UserError.
    """
    router = APIRouter(prefix="/labelling", tags=["labelling"])

    @router.get("")
    def state(choice: Choice = "stratified") -> State:
        """The labels so far, and the next pair."""
        return labelling.state(choice)

    @router.post("/answer")
    def answer(request: LabelRequest) -> State:
        """Store the answer to a pair; it is on the disk when this answers."""
        try:
            return labelling.answer(request)
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.post("/undo")
    def undo(request: UndoRequest) -> State:
        """Remove the last answer."""
        try:
            return labelling.undo(request.choice)
        except LookupError as error:
            raise HTTPException(409, str(error)) from None

    @router.get("/labels.csv", response_class=FileResponse)
    def labels() -> Any:
        """The labelled pairs, and how each was drawn, for `qpairs calibrate --labels` and `qpairs train --data`."""
        return FileResponse(labelling.path, media_type="text/csv", filename="labels.csv")

    return router
