"""The service behind `qpairs serve`: a model and an index as an HTTP application, with limits.

Requests that arrive together are encoded together: each becomes a job, and one thread answers all jobs that wait.
"""

import asyncio
import dataclasses
import hmac
import html
import json
import logging
import math
import reprlib
import signal
import socket
import time
import uuid
from collections import Counter as Counts
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Full
from typing import Annotated, Any, Literal, cast

import numpy as np
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as BaseHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from qpairs import __version__
from qpairs.faults import UserError
from qpairs.index import Index, faiss_module
from qpairs.microbatches import Microbatches
from qpairs.retrieval import Answer, answers, one_tower, query_side, require_searchable
from qpairs.runtime import Model, Side
from qpairs.shards import shorten

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

PAGE = Path(__file__).parent / "pages" / "service"
OPEN = ("/", "/health", "/docs", "/openapi.json")  # and what is under /page/: told without a token
MOST_HITS = 100
LONGEST_ID = 128  # characters
SOMETHING = r"[^\s\x1c-\x1f\x85]"  # in a text that is not blank, as Python sees it, for JavaScript's expressions
SECURITY = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Limits:
    """What the service puts up with.

    Attributes:
        body: bytes of a request.
        items: pairs or questions in a request.
        characters: of a question.
        queue: requests that wait; further ones are told to come back.
        seconds: that a request may take, from its first byte to its answer.
        batch: texts that are encoded together; with 1, each request is on its own.
    """

    body: int = 1_000_000
    items: int = 256
    characters: int = 2000
    queue: int = 1024
    seconds: float = 10.0
    batch: int = 64


# Jobs


@dataclass(frozen=True)
class Score:
    """Pairs of questions to judge."""

    pairs: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Search:
    """A question to find the nearest k of."""

    question: str
    k: int


@dataclass(frozen=True)
class Add:
    """Questions to put into the index."""

    ids: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class Delete:
    """A question to take out of the index."""

    id: str


Job = Score | Search | Add | Delete
Vectors = Callable[[Sequence[str], Side], Floats]  # texts, of one side, to (n, dimension)


class Judge:
    """A model and perhaps an index, answering jobs; their texts are encoded together, each once."""

    def __init__(self, model: Model, index: Index | None) -> None:
        model.require_cosine()
        if index:
            require_searchable(index, model)
        self.model = model
        self.index = index
        self._one_tower = one_tower(model)

    def answer(self, jobs: Sequence[Job]) -> Sequence[object]:
        """The answers to jobs, in their order; exceptions where there is none. What changes the index goes first."""
        vectors = self._encoded(jobs)
        found: dict[int, object] = {}
        kinds: Sequence[tuple[type, Callable[[Any, Vectors], Sequence[object]]]] = (
            (Delete, self._deleted),
            (Add, self._added),
            (Score, self._scored),
            (Search, self._searched),
        )
        for kind, method in kinds:
            rows = [row for row, job in enumerate(jobs) if isinstance(job, kind)]
            if rows:
                try:
                    found.update(zip(rows, method([jobs[row] for row in rows], vectors), strict=True))
                except Exception as error:
                    found.update(dict.fromkeys(rows, error))
        return [found[row] for row in range(len(jobs))]

    def texts(self, job: Job) -> Sequence[tuple[str, Side]]:
        """The texts of a job, and which tower they are for."""
        match job:
            case Score(pairs):
                both = not self._one_tower and self.model.symmetric
                sides: Sequence[Sequence[Side]] = (
                    (("left", "right"), ("right", "left")) if both else (("left", "right"),)
                )
                return [(text, s) for pair in pairs for way in sides for text, s in zip(pair, way, strict=True)]
            case Search(question) if self.index:
                return [(question, query_side(self.index))]
            case Add(_, texts) if self.index:
                return [(text, self.index.manifest.side) for text in texts]
        return []

    def _encoded(self, jobs: Sequence[Job]) -> Vectors:
        rows: Mapping[Side, dict[str, int]] = {"left": {}, "right": {}}
        for job in jobs:
            for text, side in self.texts(job):
                of = rows[self._tower(side)]
                of.setdefault(text, len(of))
        vectors = {side: self.model.encode(list(texts), side) for side, texts in rows.items() if texts}

        def look_up(texts: Sequence[str], side: Side) -> Floats:
            tower = self._tower(side)
            return vectors[tower][[rows[tower][text] for text in texts]]

        return look_up

    def _tower(self, side: Side) -> Side:
        return "left" if self._one_tower else side

    def _scored(self, jobs: Sequence[Score], vectors: Vectors) -> Sequence[NDArray[np.float64]]:
        """(n,) cosines for each."""
        first, second = zip(*(pair for job in jobs for pair in job.pairs), strict=True)
        cosines = (vectors(first, "left") * vectors(second, "right")).sum(axis=1)
        if self.model.symmetric and not self._one_tower:
            cosines = (cosines + (vectors(second, "left") * vectors(first, "right")).sum(axis=1)) / 2
        ends = np.cumsum([len(job.pairs) for job in jobs])[:-1]
        return np.split(cosines.clip(-1, 1).astype(np.float64), ends)

    def _searched(self, jobs: Sequence[Search], vectors: Vectors) -> Sequence[list[Answer]]:
        index = self._require_index()
        asked = vectors([job.question for job in jobs], query_side(index))
        faiss_module().omp_set_num_threads(1)  # of this thread: to wake others takes longer than to search
        found = answers(index, self.model, asked, max(job.k for job in jobs))
        return [row[: job.k] for row, job in zip(found, jobs, strict=True)]

    def _added(self, jobs: Sequence[Add], vectors: Vectors) -> Sequence[int | HTTPException]:
        """How many questions there are then."""
        index = self._require_index()
        taken = set(index.questions.known([name for job in jobs for name in job.ids]))
        clashes: list[str | None] = []
        ids, texts = list[str](), list[str]()
        for job in jobs:
            clash = next((name for name in job.ids if name in taken), None)
            clashes.append(clash)
            if clash is None:
                taken.update(job.ids)
                ids += job.ids
                texts += job.texts
        if ids:
            manifest = index.manifest
            index.questions.add(ids, texts, shorten(vectors(texts, manifest.side), manifest.dimension))
        count = len(index.questions)
        return [
            count if clash is None else HTTPException(409, f"id {reprlib.repr(clash)} is in the index already")
            for clash in clashes
        ]

    def _deleted(self, jobs: Sequence[Delete], _: Vectors) -> Sequence[bool]:
        """Whether the question was there; of several who delete it, for the first."""
        index = self._require_index()
        known = index.questions.known([job.id for job in jobs])
        index.questions.delete(known)
        first = {job.id: row for row, job in reversed(list(enumerate(jobs)))}
        return [job.id in known and first[job.id] == row for row, job in enumerate(jobs)]

    def _require_index(self) -> Index:
        if not self.index:
            raise HTTPException(409, "the service has no index; start it with --index")
        return self.index


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
            BaseHTTPException: _refused,
        },
    )
    secured = token is not None
    app.include_router(_questions(judge, batches, limits, secured=secured))
    app.include_router(_operations(judge, batches, metrics, secured=secured))
    if index and labels:
        from qpairs import labelling

        app.include_router(
            labelling.routes(labelling.Desk.open(labels, model, index)),
            dependencies=_credentials(secured),
            responses=_refusals(408, 409, 413, 422, 503, secured=secured),
        )
    _add_pages(app)
    app.add_middleware(guarded, limits=limits, token=token, metrics=metrics)
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
    model = judge.model

    @routes.post("/score")
    async def score(body: Pairs) -> Scores:
        """Judge pairs of questions: whether both ask the same."""
        cosines = await ask(Score(body.pairs))
        verdicts = zip(cosines.tolist(), model.probability(cosines).tolist(), strict=True)
        results = [Verdict(similarity=s, probability=p, duplicate=s >= model.threshold) for s, p in verdicts]
        return Scores(threshold=model.threshold, results=results)

    @routes.post("/search", responses=_refusals(409, secured=False))
    async def search(body: Asked) -> Hits:
        """Find the questions of the index that are nearest to one, with the verdict on each."""
        found: list[Answer] = await ask(Search(body.question, body.k))
        hits = [
            Found(**dataclasses.asdict(answer.hit), probability=answer.probability, duplicate=answer.duplicate)
            for answer in found
        ]
        return Hits(threshold=model.threshold, hits=hits)

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
        count = len(index.questions) if index else None
        return Ready(model=model.path.name, fingerprint=model.fingerprint, questions=count, threshold=model.threshold)

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


def _detail(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": " ".join(detail.split())[:300]}, status, headers)


async def _malformed(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(reprlib.repr(part).strip("'") for part in first["loc"])
    return _detail(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")


async def _refused(_: Request, error: Exception) -> Response:
    refusal = cast(BaseHTTPException, error)
    if refusal.status_code == 400:  # of FastAPI, where a body cannot be parsed
        return _detail(422, "body: not JSON in UTF-8")
    return _detail(refusal.status_code, str(refusal.detail), refusal.headers)


async def _unavailable(_: Request, error: Exception) -> Response:
    log.error("%s", error)
    return _detail(503, "the service cannot read or write its files now; its log says why")


def guarded(app: ASGIApp, limits: Limits, token: str | None, metrics: Metrics) -> ASGIApp:
    """An application behind a token, a limit of time and one of size; counts its requests."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, begin = 0, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        async def refuse(code: int, detail: str, **headers: str) -> None:
            if not status:
                names = {name.replace("_", "-"): value for name, value in headers.items()}
                await _detail(code, detail, names)(scope, receive, answer)

        body: bytes | None = None
        allowed = token is None or _is_open(scope["path"]) or _bears(Headers(scope=scope), token)
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _read(receive, limits.body if allowed else 0)
                if not allowed:
                    await refuse(401, "the bearer token is missing or wrong", www_authenticate="Bearer")
                elif body is None:
                    await refuse(413, f"the body has more than {limits.body:,} bytes")
                else:
                    await app(scope, _again(body, receive), answer)
        except TimeoutError:
            if body is None:
                await refuse(408, f"the request took longer than {limits.seconds:g} s to arrive", connection="close")
            else:
                await refuse(503, f"the answer took longer than {limits.seconds:g} s", retry_after="1")
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            await refuse(500, "the service failed; its log says why")
        path = getattr(scope.get("route"), "path", "other")
        metrics.requests.labels(path, status).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - begin)

    return serve


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/page/")


def _bears(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


async def _read(receive: Receive, most: int) -> bytes | None:
    """A body; None where it has more bytes: then it is read to its end, so that the client listens to the answer."""
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(message.get("body", b""))
        parts = [*parts, message.get("body", b"")] if size <= most else []
        more = message.get("more_body", False)
    return b"".join(parts) if size <= most else None


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return first.pop() if first else await receive()

    return give


# The server


def run(app: FastAPI, listener: socket.socket, limits: Limits) -> None:
    """Serves until SIGINT or SIGTERM; requests that have come by then are answered first."""

    class Punctual(H11Protocol):
        """Closes a connection where no request comes in time; of one that comes, `guarded` takes the time."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._deadline = self.loop.call_later(limits.seconds, self._close_idle)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._deadline.cancel()
            self._deadline = self.loop.call_later(limits.seconds, self._close_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._deadline.cancel()

        def _close_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    config = uvicorn.Config(
        app,
        http=Punctual,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.seconds) + 1,
    )
    for stop in (signal.SIGINT, signal.SIGTERM):  # which uvicorn raises once more when all is answered
        signal.signal(stop, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
