"""The application behind `qpairs serve`: a model and an index over HTTP, with a page and a description of the API.

A request waits in a queue; one thread answers all waiting requests together.
"""

from __future__ import annotations

import itertools
import logging
import reprlib
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from queue import Full
from typing import TYPE_CHECKING, cast

from fastapi import APIRouter, FastAPI, Request, Response
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
from qpairs.serving.limits import Limits, enforce_limits, error_response, refuse_changes
from qpairs.serving.monitoring import Monitor
from qpairs.serving.origins import OWN_PAGE, Origins
from qpairs.serving.requests import IndexConflict, RequestHandler, ServiceRequest
from qpairs.serving.routes import Service, operator_routes, question_routes

if TYPE_CHECKING:
    from qpairs.evaluation.calibrate_corpus import CorpusFit
    from qpairs.serving.clusters import ReviewedFolder
    from qpairs.serving.start import Session
    from qpairs.serving.start_page import StartPage
    from qpairs.serving.uploads import Uploads

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "pages" / "service"
EXAMPLES, GOOD_LENGTH, LOOKED_AT = 4, 45, 2000  # questions to try: how many, of which length, of how many


def create_app(
    model: Model,
    index: Index | None = None,
    *,
    limits: Limits = Limits(),
    token: str | None = None,
    origins: Origins = OWN_PAGE,
    labels: Path | LabelFile | None = None,
    session: Session | None = None,
    clusters: Path | None = None,
    url_template: str = "",
    read_only: bool = False,
    uploads: Uploads | None = None,
) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and stops the thread that answers.

    Args:
        model: scores and encodes.
        index: is searched and changed; changes to one of `journal.journalled` survive the process.
        limits: above which requests are refused.
        token: bearer token that requests need; None: no token.
        origins: whose web pages may send requests.
        labels: file of labels, for labelling pairs of the index; already opened if the annotator has a name.
        session: of `start.open_session`, whose index is served, for the page that does what `qpairs start` does; its
            labels replace `labels`, and its results replace `clusters`.
        clusters: folder that `qpairs dedupe` wrote, to correct its clusters.
        url_template: of the addresses of questions, with {id}, from `links.check_url_template`.
        read_only: whether to refuse every change to the index, labels (which are not asked for) and clusters.
        uploads: takes files of questions that browsers send; see `uploads.with_uploads`.

    Raises:
        UserError: the verdict does not work on cosines, or the index is of another model.
    """
    folder = session.folder.duplicates if session else clusters
    asking, labels, uploads = (None, None, None) if read_only else (session, labels, uploads)
    shown = {"start": asking or uploads, "label": index and (labels or asking), "clusters": folder}
    service = _create_service(model, index, limits, waiting=uploads is not None)
    service = replace(
        service,
        secured=token is not None,
        url_template=url_template,
        read_only=read_only,
        views=[name for name, there in shown.items() if there],
        examples=_examples(index) if index else (),
    )
    reviewed = _reviewed(folder, model, service) if folder else None
    app = _application(service, reviewed)
    routers = [question_routes(service), operator_routes(service)]
    page = _start_page(asking, service) if asking else None
    app.state.start_page = page
    routers += _view_routes(service, model, index, labels, page, reviewed, uploads)
    for router in routers:
        app.include_router(router)
    _add_pages(app)
    if read_only:
        app.add_middleware(refuse_changes)
    app.add_middleware(enforce_limits, limits=limits, token=token, origins=origins, observe=service.monitor.observe)
    _allow_origins(app, origins)
    return app


def _allow_origins(app: FastAPI, origins: Origins) -> None:
    """Answers CORS preflight requests, which have no token; outermost."""
    if origins.allowed:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins.allowed,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=("authorization", "content-type"),
        )


def _application(service: Service, reviewed: ReviewedFolder | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with service.queue, closing(reviewed) if reviewed else nullcontext():
            yield

    return FastAPI(
        title="qpairs",
        version=__version__,
        description="Has this been asked? Says whether two questions ask the same, and finds questions that do.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            RequestValidationError: _on_malformed,
            UserError: _on_user_error,
            IndexConflict: _on_conflict,
            HTTPException: _on_http_error,
            Full: _on_full,
        },
    )


def _view_routes(
    service: Service,
    model: Model,
    index: Index | None,
    labels: Path | LabelFile | None,
    page: StartPage | None,
    reviewed: ReviewedFolder | None,
    uploads: Uploads | None,
) -> list[APIRouter]:
    """The routes of the views besides search and compare."""
    routers: list[APIRouter] = []
    if page:
        from qpairs.serving.labelling_routes import labelling_routes
        from qpairs.serving.start_routes import start_routes

        routers += [start_routes(page), labelling_routes(page.session.labelling, page.apply)]
    elif index and labels:
        routers.append(_labelling(service, model, index, labels))
    if reviewed:
        from qpairs.serving.cluster_routes import cluster_routes

        routers.append(cluster_routes(reviewed, read_only=service.read_only))
    if uploads:
        from qpairs.serving.upload_routes import upload_routes

        routers.append(upload_routes(uploads))
    described = service.errors(404, 408, 409, 413, 415, 422, 503)
    secured = APIRouter(dependencies=service.credentials, responses=described)
    for router in routers:
        secured.include_router(router)
    return [secured]


def _start_page(session: Session, service: Service) -> StartPage:
    from qpairs.serving.start_page import StartPage

    return StartPage(session, service.judge_by)


def _reviewed(folder: Path, model: Model, service: Service) -> ReviewedFolder:
    from qpairs.serving.clusters import ReviewedFolder

    return ReviewedFolder(folder, model.encode, read_only=service.read_only)


def _labelling(service: Service, model: Model, index: Index, labels: Path | LabelFile) -> APIRouter:
    from qpairs.serving.labelling import Labelling
    from qpairs.serving.labelling_routes import labelling_routes
    from qpairs.serving.refit import Refit, count_index

    labelling, lock = Labelling.open(labels, model, index), threading.Lock()
    refit = Refit(lambda: count_index(model, index), labelling, lambda: service.handler.changes)

    def apply() -> CorpusFit:
        with lock:  # or the service might judge by the older of two fits
            refit.refit()
            service.judge_by(refit.fit.model)
            return refit.fit

    return labelling_routes(labelling, apply)


def _examples(index: Index) -> list[str]:
    """Some questions of the index to try: short ones of more than one word."""
    some = [text for text in itertools.islice(index.questions.texts(), LOOKED_AT) if len(text.split()) > 2]
    return sorted(dict.fromkeys(some), key=lambda text: abs(len(text) - GOOD_LENGTH))[:EXAMPLES]


def _create_service(model: Model, index: Index | None, limits: Limits, *, waiting: bool) -> Service:
    monitor = Monitor()
    handler = RequestHandler(model, index, most_read=limits.reads, on_read=monitor.pairs_read.inc, waiting=waiting)

    def process(requests: Sequence[ServiceRequest]) -> Sequence[object]:
        monitor.batch_requests.observe(len(requests))
        monitor.batch_texts.observe(sum(map(handler.size, requests)))
        return handler.answer(requests)

    queue = BatchQueue(process, handler.size, batch_size=limits.batch, capacity=limits.queue)
    monitor.queue.set_function(lambda: len(queue))
    monitor.questions.set_function(lambda: len(index.questions) if index else 0)
    return Service(handler, queue, monitor, limits, secured=False)


def _add_pages(app: FastAPI) -> None:
    """The page at /, the API at /docs, and the script for pages of other sites: all that they need is on this host."""

    @app.get("/", include_in_schema=False)
    def front() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.get("/embed.js", include_in_schema=False)
    def box() -> FileResponse:
        return FileResponse(PAGE / "embed.js", media_type="text/javascript")

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


async def _on_full(_: Request, __: Exception) -> Response:
    return error_response(503, "too many requests are waiting; try again in a second", {"retry-after": "1"})


async def _on_user_error(_: Request, error: Exception) -> Response:
    log.error("%s", error)
    return error_response(503, "the service cannot read or write its files now; see its log")
