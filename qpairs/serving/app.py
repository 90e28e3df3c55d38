"""The application behind `qpairs serve`: a model and an index over HTTP, with a page and a description of the API.

A request waits in a queue; one thread answers all waiting requests together.
"""

import logging
import reprlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from qpairs import __version__
from qpairs.core.exceptions import UserError
from qpairs.models.base import Model
from qpairs.retrieval.index import Index
from qpairs.serving.batching import BatchQueue
from qpairs.serving.label_file import LabelFile
from qpairs.serving.limits import Limits, enforce_limits, error_response
from qpairs.serving.monitoring import Monitor
from qpairs.serving.origins import OWN_PAGE, Origins
from qpairs.serving.requests import IndexConflict, RequestHandler, ServiceRequest
from qpairs.serving.routes import Service, operator_routes, question_routes

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "pages" / "service"
SWAGGER_UI = Path(str(files("fastapi_offline"))) / "static"


def create_app(
    model: Model,
    index: Index | None = None,
    *,
    limits: Limits = Limits(),
    token: str | None = None,
    origins: Origins = OWN_PAGE,
    labels: Path | LabelFile | None = None,
) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and stops the thread that answers.

    Args:
        model: scores and encodes.
        index: is searched and changed; changes to one of `journal.journalled` survive the process.
        limits: beyond which requests are refused.
        token: bearer token that requests need; None: no token.
        origins: whose web pages may ask.
        labels: file of labels, for labelling pairs of the index; opened already where the annotator has a name.

    Raises:
        UserError: the verdict cannot be read from cosines, or the index is of another model.
    """
    service = _create_service(model, index, limits, secured=token is not None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with service.queue:
            yield

    app = FastAPI(
        title="qpairs",
        version=__version__,
        description="Has this been asked? Tells whether two questions ask the same thing, and finds those that do.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            RequestValidationError: _on_malformed,
            UserError: _on_user_error,
            IndexConflict: _on_conflict,
            HTTPException: _on_http_error,
        },
    )
    app.include_router(question_routes(service))
    app.include_router(operator_routes(service))
    if index and labels:
        _add_labelling(app, service, model, index, labels)
    _add_pages(app)
    app.add_middleware(enforce_limits, limits=limits, token=token, origins=origins, observe=service.monitor.observe)
    if origins.allowed:  # outermost: a browser asks without a token whether it may send one
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins.allowed,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("authorization", "content-type"),
        )
    return app


def _add_labelling(app: FastAPI, service: Service, model: Model, index: Index, labels: Path | LabelFile) -> None:
    from qpairs.serving.labelling import Labelling
    from qpairs.serving.labelling_routes import labelling_routes

    app.include_router(
        labelling_routes(Labelling.open(labels, model, index)),
        dependencies=service.credentials,
        responses=service.errors(408, 409, 413, 415, 422, 503),
    )


def _create_service(model: Model, index: Index | None, limits: Limits, *, secured: bool) -> Service:
    monitor = Monitor()
    handler = RequestHandler(model, index, most_read=limits.reads, on_read=monitor.pairs_read.inc)

    def process(requests: Sequence[ServiceRequest]) -> Sequence[object]:
        monitor.batch_requests.observe(len(requests))
        monitor.batch_texts.observe(sum(map(handler.size, requests)))
        return handler.answer(requests)

    queue = BatchQueue(process, handler.size, batch_size=limits.batch, capacity=limits.queue)
    monitor.queue.set_function(lambda: len(queue))
    monitor.questions.set_function(lambda: len(index.questions) if index else 0)
    return Service(handler, queue, monitor, limits, secured)


def _add_pages(app: FastAPI) -> None:
    """The page at /, and Swagger UI at /docs: all from this host, as the content security policy demands."""

    @app.get("/", include_in_schema=False)
    def front() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page/swagger-ui", StaticFiles(directory=SWAGGER_UI))
    app.mount("/page", StaticFiles(directory=PAGE))


async def _on_malformed(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(reprlib.repr(part).strip("'") for part in first["loc"])
    return error_response(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")


async def _on_http_error(_: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    if raised.status_code == 400:  # from FastAPI, if a body cannot be parsed
        return error_response(422, "body: not JSON in UTF-8")
    return error_response(raised.status_code, str(raised.detail), raised.headers)


async def _on_conflict(_: Request, error: Exception) -> Response:
    return error_response(409, str(error))


async def _on_user_error(_: Request, error: Exception) -> Response:
    log.error("%s", error)
    return error_response(503, "the service cannot read or write its files now; its log says why")
