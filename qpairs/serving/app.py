"""The service behind `qpairs serve`: a model and an index as an HTTP application, with limits.

Requests that arrive together are encoded together: each becomes a job, and one thread answers all jobs that wait.
"""

import asyncio
import dataclasses
import html
import json
import logging
import reprlib
import uuid
from collections import Counter as Counts
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Full
from typing import Annotated, Any, Literal, cast

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.exceptions import HTTPException as BaseHTTPException

from qpairs import __version__
from qpairs.core.exceptions import UserError
from qpairs.models.base import Model
from qpairs.retrieval.index import Index
from qpairs.retrieval.search import Answer
from qpairs.serving.batching import Microbatches
from qpairs.serving.limits import Limits, guarded, refusal
from qpairs.serving.requests import Add, Conflict, Delete, Job, Judge, Score, Search

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

PAGE = Path(__file__).parent / "pages" / "service"
MOST_HITS = 100
LONGEST_ID = 128  # characters
SOMETHING = r"[^\s\x1c-\x1f\x85]"  # in a text that is not blank, as Python sees it, for JavaScript's expressions
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


# Metrics


class Metrics:
    """What `/metrics` tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("qpairs_requests", "Requests.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "qpairs_request_seconds", "Time of a request.", ["path"], buckets=SECONDS, registry=registry
        )
        self.batch_requests = Histogram(
            "qpairs_batch_requests", "Requests that were answered together.", buckets=SIZES, registry=registry
        )
        self.batch_texts = Histogram(
            "qpairs_batch_texts", "Texts of the requests that were answered together.", buckets=SIZES, registry=registry
        )
        self.queue = Gauge("qpairs_queue_length", "Requests that wait.", registry=registry)
        self.questions = Gauge("qpairs_questions", "Questions in the index.", registry=registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)


# The application


def create_app(
    model: Model,
    index: Index | None = None,
    *,
    limits: Limits = Limits(),
    token: str | None = None,
    labels: Path | None = None,
) -> FastAPI:
    """The service as an ASGI application; its lifespan is that of the thread that answers.

    Args:
        model: judges.
        index: is searched; `journal.journalled` gives one whose changes survive the process.
        limits: beyond which requests are refused.
        token: that requests must bear.
        labels: file of a labelling desk over the index.

    Raises:
        UserError: the verdict cannot be read from cosines, or the index is of another model.
    """
    judge, metrics = Judge(model, index), Metrics()

    def work(jobs: Sequence[Job]) -> Sequence[object]:
        metrics.batch_requests.observe(len(jobs))
        metrics.batch_texts.observe(sum(map(size, jobs)))
        return judge.answer(jobs)

    def size(job: Job) -> int:
        return max(1, len(judge.texts(job)))

    batches = Microbatches(work, size, largest=limits.batch, waiting=limits.queue)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with batches:
            yield

    metrics.queue.set_function(lambda: len(batches))
    metrics.questions.set_function(lambda: len(index.questions) if index else 0)
    app = FastAPI(
        title="qpairs",
        version=__version__,
        description="Has this been asked? Tells whether two questions ask the same thing, and finds those that do.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={
            RequestValidationError: _malformed,
            UserError: _unavailable,
            Conflict: _conflicting,
            BaseHTTPException: _refused,
        },
    )
    secured = token is not None
    app.include_router(_questions(judge, batches, limits, secured=secured))
    app.include_router(_operations(judge, batches, metrics, secured=secured))
    if index and labels:
        from qpairs.serving import labelling

        app.include_router(
            labelling.routes(labelling.Desk.open(labels, model, index)),
            dependencies=_credentials(secured),
            responses=_refusals(408, 409, 413, 422, 503, secured=secured),
        )
    _add_pages(app)
    app.add_middleware(guarded, limits=limits, token=token, observe=metrics.observe)
    return app


class Refusal(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Verdict(BaseModel):
    """The verdict on a pair."""

    similarity: float
    probability: float
    duplicate: bool


class Scores(BaseModel):
    """The verdicts on pairs, in their order, at a threshold of the similarity."""

    threshold: float
    results: list[Verdict]


class Found(BaseModel):
    """A question of the index, and the verdict on it."""

    id: str
    text: str
    similarity: float
    probability: float
    duplicate: bool


class Hits(BaseModel):
    """The nearest questions, nearest first, with the verdicts at a threshold of the similarity."""

    threshold: float
    hits: list[Found]


class Added(BaseModel):
    """The ids of the questions that were added, in their order, and how many questions the index has now."""

    ids: list[str]
    count: int


class Ready(BaseModel):
    """What serves: the model's name and identity, the questions of the index (null: no index), the threshold."""

    model: str
    fingerprint: str
    questions: int | None
    threshold: float


class Alive(BaseModel):
    """That the process is there."""

    status: Literal["alive"] = "alive"


def _refusals(*codes: int, secured: bool) -> dict[int | str, dict[str, Any]]:
    about = {
        401: "The bearer token is missing or wrong.",
        404: "There is no such question.",
        408: "The request did not come in time.",
        409: "The index does not allow it.",
        413: "The body is too large.",
        422: "The body is not as described here.",
        503: "Too many requests wait (Retry-After says when to come back), or the answer took too long.",
    }
    codes = (*codes, 401) if secured else codes
    return {code: {"model": Refusal, "description": about[code]} for code in sorted(codes)}


def _questions(judge: Judge, batches: Microbatches[Job], limits: Limits, *, secured: bool) -> APIRouter:
    """The routes that take questions."""
    shape = ConfigDict(strict=True, extra="forbid")
    Question = Annotated[
        str,
        Field(min_length=1, max_length=limits.characters, json_schema_extra={"pattern": SOMETHING}),
        AfterValidator(_one_line),
    ]

    class Pairs(BaseModel):
        model_config = shape
        pairs: Annotated[
            list[Annotated[list[Question], Field(min_length=2, max_length=2)]],
            Field(
                min_length=1, max_length=limits.items, examples=[[["How do I pay?", "Which ways to pay are there?"]]]
            ),
        ]

    class Asked(BaseModel):
        model_config = shape
        question: Annotated[Question, Field(examples=["How do I pay?"])]
        k: Annotated[int, Field(ge=1, le=MOST_HITS), BeforeValidator(_whole)] = 10

    class NewQuestion(BaseModel):
        model_config = shape
        id: Annotated[str, Field(min_length=1, max_length=LONGEST_ID)] | None = None
        text: Question

    class NewQuestions(BaseModel):
        model_config = shape
        questions: Annotated[
            list[NewQuestion],
            Field(min_length=1, max_length=limits.items, examples=[[{"id": "faq-7", "text": "How do I pay?"}]]),
        ]

    async def ask(job: Job) -> Any:
        try:
            future = batches.submit(job)
        except Full:
            raise HTTPException(503, "too many requests wait; come back in a second", {"Retry-After": "1"}) from None
        return await asyncio.wrap_future(future)

    routes = APIRouter(dependencies=_credentials(secured), responses=_refusals(408, 413, 422, 503, secured=secured))
    setting = judge.model.verdict.pair

    @routes.post("/score")
    async def score(body: Pairs) -> Scores:
        """Judge pairs of questions: whether both ask the same."""
        cosines = await ask(Score(body.pairs))
        said = (cosines, setting.probability(cosines), setting.decide(cosines))
        results = [
            Verdict(similarity=s, probability=p, duplicate=d)
            for s, p, d in zip(*(values.tolist() for values in said), strict=True)
        ]
        return Scores(threshold=setting.threshold, results=results)

    @routes.post("/search", responses=_refusals(409, secured=False))
    async def search(body: Asked) -> Hits:
        """Find the questions of the index that are nearest to one, with the verdict on each."""
        found: list[Answer] = await ask(Search(body.question, body.k))
        hits = [
            Found(**dataclasses.asdict(answer.hit), probability=answer.probability, duplicate=answer.duplicate)
            for answer in found
        ]
        return Hits(threshold=setting.threshold, hits=hits)

    @routes.post("/questions", status_code=201, responses=_refusals(409, secured=False))
    async def add(body: NewQuestions) -> Added:
        """Add questions to the index, all or none; they are on the disk when this answers."""
        ids = [uuid.uuid4().hex if new.id is None else new.id for new in body.questions]
        twice = next((name for name, count in Counts(ids).items() if count > 1), None)
        if twice is not None:
            raise HTTPException(409, f"id {reprlib.repr(twice)} is in the request twice")
        return Added(ids=ids, count=await ask(Add(ids, [new.text for new in body.questions])))

    @routes.delete("/questions/{id:path}", status_code=204, responses=_refusals(404, 409, secured=False))
    async def delete(id: str) -> None:
        """Take a question out of the index, for good when this answers."""
        if not await ask(Delete(id)):
            raise HTTPException(404, f"id {reprlib.repr(id)} is not in the index")

    return routes


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise ValueError("the question is empty")
    return line


def _whole(number: Any) -> Any:
    """In JSON, 10.0 is an integer, too."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _credentials(secured: bool) -> Sequence[Any]:
    """What says in the OpenAPI document that a token is needed; `guarded` looks at it."""
    return [Depends(HTTPBearer(auto_error=False))] if secured else []


def _operations(judge: Judge, batches: Microbatches[Job], metrics: Metrics, *, secured: bool) -> APIRouter:
    """The routes for whoever runs the service."""
    routes = APIRouter()
    guarded = APIRouter(dependencies=_credentials(secured), responses=_refusals(secured=secured))
    model, index = judge.model, judge.index

    @routes.get("/health")
    async def health() -> Alive:
        """Whether the process is there."""
        return Alive()

    @guarded.get("/ready", responses=_refusals(503, secured=False))
    def ready() -> Ready:
        """Whether questions are answered, by which model, over how many questions."""
        if not batches.alive:
            raise HTTPException(503, "the service is starting or stopping")
        count, threshold = len(index.questions) if index else None, model.verdict.pair.threshold
        return Ready(model=model.path.name, fingerprint=model.fingerprint, questions=count, threshold=threshold)

    @guarded.get("/metrics", response_class=PlainTextResponse)
    def figures() -> Response:
        """Requests by path and status, their times, sizes of batches and length of the queue, for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    routes.include_router(guarded)
    return routes


# Pages


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def front() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(documentation(app.openapi()))

    app.mount("/page", StaticFiles(directory=PAGE))


def documentation(spec: Mapping[str, Any]) -> str:
    """An OpenAPI document as a page of HTML that needs nothing from other hosts."""
    named = spec["components"]["schemas"]
    parts = [
        f"<h1>{html.escape(spec['info']['title'])}</h1><p>{html.escape(spec['info']['description'])}</p>",
        "<p>Bodies and answers are JSON; what is refused says why in <code>detail</code>. All of this for programs: "
        '<a href="/openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2>")
            parts.append(f"<p>{html.escape(operation.get('description', ''))}</p>")
            if body := operation.get("requestBody"):
                schema = _resolved(body["content"]["application/json"]["schema"], named)
                parts += [f"<pre>{html.escape(json.dumps(_example(schema)))}</pre>", _details("Body", schema)]
            for code, response in sorted(operation["responses"].items()):
                if schema := response.get("content", {}).get("application/json", {}).get("schema"):
                    title = "Answer" if code < "300" else f"{code}: {response['description']}"
                    parts.append(_details(title, _resolved(schema, named)))
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>qpairs: API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="/page/icon.svg">'
        f'<link rel="stylesheet" href="/page/style.css"></head><body><main>{body}</main></body></html>'
    )


def _details(title: str, schema: Any) -> str:
    text = json.dumps(schema, indent=1)
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def _example(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A body that a schema describes, from the examples and defaults of its fields."""
    fields = schema["properties"]
    return {name: field.get("examples", [field.get("default", "...")])[0] for name, field in fields.items()}


def _resolved(schema: Any, named: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in its place."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _resolved(named[schema["$ref"].rpartition("/")[2]], named)
        return {key: _resolved(value, named) for key, value in schema.items()}
    return [_resolved(value, named) for value in schema] if isinstance(schema, list) else schema


# What is refused


async def _malformed(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(reprlib.repr(part).strip("'") for part in first["loc"])
    return refusal(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")


async def _refused(_: Request, error: Exception) -> Response:
    raised = cast(BaseHTTPException, error)
    if raised.status_code == 400:  # of FastAPI, where a body cannot be parsed
        return refusal(422, "body: not JSON in UTF-8")
    return refusal(raised.status_code, str(raised.detail), raised.headers)


async def _conflicting(_: Request, error: Exception) -> Response:
    return refusal(409, str(error))


async def _unavailable(_: Request, error: Exception) -> Response:
    log.error("%s", error)
    return refusal(503, "the service cannot read or write its files now; its log says why")
