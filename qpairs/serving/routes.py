"""The HTTP routes of a service: bodies of requests and answers, and what each route does with them."""

import asyncio
import re
import reprlib
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from qpairs.models.base import Model
from qpairs.models.second_setting import SecondSetting
from qpairs.models.verdict import words
from qpairs.retrieval.search import heading
from qpairs.serving.batching import BatchQueue
from qpairs.serving.bodies import STRICT
from qpairs.serving.limits import Limits
from qpairs.serving.links import question_url
from qpairs.serving.monitoring import Monitor
from qpairs.serving.requests import (
    AddRequest,
    DeleteRequest,
    Found,
    JudgeRequest,
    RequestHandler,
    Scored,
    ScoreRequest,
    SearchRequest,
    ServiceRequest,
    ThresholdOf,
)

MAX_HITS = 100
MAX_ID = 128  # characters
NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
NOT_BLANK = r"[^\s\x1c-\x1f\x85]"  # white space as in Python, in the syntax of JavaScript
EXAMPLE_PAIRS = [["How do I pay?", "Which ways to pay are there?"]]
ERRORS = {
    401: "The bearer token is missing or wrong.",
    403: "The request comes from a page of another site, names another host, or would change a read-only service.",
    404: "There is no such question.",
    408: "The request did not arrive in time.",
    409: "The index does not allow it.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The body is not as described here.",
    503: "Too many requests are waiting (Retry-After says when to try again), or the answer took too long.",
}


@dataclass(frozen=True)
class Service:
    """What the routes share.

    Attributes:
        handler: answers batches of requests.
        queue: of requests for the handler.
        monitor: counts them.
        limits: of the bodies of requests.
        secured: whether a token is needed.
        url_template: of the addresses of questions, with {id}; '' if they have none.
        read_only: whether nothing may be changed.
        views: of the page, besides search and compare.
        examples: questions to try.
    """

    handler: RequestHandler
    queue: BatchQueue[ServiceRequest]
    monitor: Monitor
    limits: Limits
    secured: bool
    url_template: str = ""
    read_only: bool = False
    views: Sequence[str] = ()
    examples: Sequence[str] = ()

    async def ask(self, request: ServiceRequest) -> Any:
        """The answer of the handler.

        Raises:
            queue.Full: too many requests are waiting.
        """
        return await asyncio.wrap_future(self.queue.submit(request))

    def judge_by(self, model: Model) -> None:
        """Uses the verdict of another model with the same encoder for all later requests; returns when it is in use.

        Raises:
            queue.Full: too many requests are waiting.
        """
        self.queue.submit(JudgeRequest(model)).result()

    def errors(self, *codes: int) -> dict[int | str, dict[str, Any]]:
        """Descriptions of error responses for the OpenAPI document, including those of origin and token."""
        codes = (*codes, 403, 401) if self.secured else (*codes, 403)
        return {code: {"model": Error, "description": ERRORS[code]} for code in sorted(codes)}

    @property
    def credentials(self) -> Sequence[Any]:
        """Declares the token in the OpenAPI document; `limits.enforce_limits` checks it."""
        return [Depends(HTTPBearer(auto_error=False))] if self.secured else []


Verdict = Annotated[str, Field(examples=["probably a duplicate"])]


class Error(BaseModel):
    """The reason for an error, in one line."""

    detail: str


class ScoredPair(BaseModel):
    """The verdict on a pair: decision, probability, and both in words."""

    similarity: float
    probability: float
    duplicate: bool
    verdict: Verdict


class Scores(BaseModel):
    """The verdicts on pairs, in their order.

    `threshold` is the lowest similarity of a duplicate, or after a second look the lowest probability, as
    `threshold_of` says; `of` says for which pairs the probabilities hold.
    """

    threshold: float
    threshold_of: ThresholdOf
    of: Annotated[str, Field(examples=["of pairs like those of validation"])]
    results: list[ScoredPair]


class FoundQuestion(BaseModel):
    """A question of the index, and the verdict on it: decision, probability, and both in words.

    `url` is its address, if the service knows one.
    """

    id: str
    text: str
    similarity: float
    probability: float
    duplicate: bool
    verdict: Verdict
    url: str | None = None


class Hits(BaseModel):
    """The nearest questions, nearest first, or after a second look most probable first, with their verdicts.

    `threshold` is the lowest similarity or probability of a duplicate, as `threshold_of` says; `of` says for which hits
    the probabilities hold, and `heading` says in one line whether the question was asked before.
    """

    threshold: float
    threshold_of: ThresholdOf
    of: Annotated[str, Field(examples=["of a hit among 2,000 questions"])]
    heading: Annotated[str, Field(examples=["Probably asked before: 1 question is called a duplicate."])]
    hits: list[FoundQuestion]


class Added(BaseModel):
    """The ids of the added questions, in their order, and the number of questions in the index."""

    ids: list[str]
    count: int


class Ready(BaseModel):
    """The model's name and identity, the number of questions in the index, and the threshold for pairs.

    `questions` is null without an index, and `threshold` if a ready model waits for a file of questions.
    """

    model: str
    fingerprint: str
    questions: int | None
    threshold: float | None
    threshold_of: ThresholdOf


class About(BaseModel):
    """What the page shows: its views, questions to try, and whether it is read-only."""

    views: list[str]
    examples: list[str]
    read_only: bool


class Alive(BaseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


def question_routes(service: Service) -> APIRouter:
    """POST /score, POST /search, POST /questions, DELETE /questions/{id}."""
    routes = APIRouter(dependencies=service.credentials, responses=service.errors(408, 413, 415, 422, 503))
    _add_score(routes, service)
    _add_search(routes, service)
    if not service.read_only:
        _add_changes(routes, service)
    return routes


def _question_field(limits: Limits) -> Any:
    return Field(min_length=1, max_length=limits.characters, json_schema_extra={"pattern": NOT_BLANK})


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise ValueError("the question is empty")
    return line


def _without_controls(name: str) -> str:
    if not re.fullmatch(NO_CONTROLS, name):  # DELETE could not name it in its path
        raise ValueError("the id has a line break or another control character")
    return name


def _whole_number(number: Any) -> Any:
    """In JSON, 10.0 is an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _add_score(routes: APIRouter, service: Service) -> None:
    Question = Annotated[str, _question_field(service.limits), AfterValidator(_one_line)]
    Pair = Annotated[list[Question], Field(min_length=2, max_length=2)]

    class Pairs(BaseModel):
        model_config = STRICT
        pairs: Annotated[list[Pair], Field(min_length=1, max_length=service.limits.items, examples=[EXAMPLE_PAIRS])]

    @routes.post("/score")
    async def score(body: Pairs) -> Scores:
        """Score pairs of questions: whether both ask the same."""
        scored: Scored = await service.ask(ScoreRequest(body.pairs))
        columns = (scored.similarity, scored.probability, scored.duplicate)
        results = [
            ScoredPair(
                similarity=similarity,
                probability=probability,
                duplicate=duplicate,
                verdict=words(probability, duplicate),
            )
            for similarity, probability, duplicate in zip(*(column.tolist() for column in columns), strict=True)
        ]
        return Scores(
            threshold=scored.threshold, threshold_of=scored.threshold_of, of=scored.precision_of, results=results
        )


def _add_search(routes: APIRouter, service: Service) -> None:
    Question = Annotated[str, _question_field(service.limits), AfterValidator(_one_line)]

    class Query(BaseModel):
        model_config = STRICT
        question: Annotated[Question, Field(examples=["How do I pay?"])]
        k: Annotated[int, Field(ge=1, le=MAX_HITS), BeforeValidator(_whole_number)] = 10

    @routes.post("/search", responses=service.errors(409))
    async def search(body: Query) -> Hits:
        """Find the questions of the index that are nearest to one, with the verdict on each."""
        found: Found = await service.ask(SearchRequest(body.question, body.k))
        hits = [
            FoundQuestion(
                id=answer.hit.id,
                text=answer.hit.text,
                similarity=answer.hit.similarity,
                probability=answer.probability,
                duplicate=answer.duplicate,
                verdict=answer.verdict,
                url=question_url(service.url_template, answer.hit.id) if service.url_template else None,
            )
            for answer in found.answers
        ]
        setting = found.setting
        return Hits(
            threshold=setting.threshold,
            threshold_of="probability" if isinstance(setting, SecondSetting) else "similarity",
            of=setting.precision_of,
            heading=heading(found.answers),
            hits=hits,
        )


def _add_changes(routes: APIRouter, service: Service) -> None:
    Question = Annotated[str, _question_field(service.limits), AfterValidator(_one_line)]

    id_field = Field(min_length=1, max_length=MAX_ID, json_schema_extra={"pattern": NO_CONTROLS})
    Id = Annotated[str, id_field, AfterValidator(_without_controls)]

    class NewQuestion(BaseModel):
        model_config = STRICT
        id: Id | None = None
        text: Question

    class NewQuestions(BaseModel):
        model_config = STRICT
        questions: Annotated[
            list[NewQuestion],
            Field(min_length=1, max_length=service.limits.items, examples=[[{"id": "faq-7", "text": "How do I pay?"}]]),
        ]

    @routes.post("/questions", status_code=201, responses=service.errors(409))
    async def add(body: NewQuestions) -> Added:
        """Add questions to the index, all or none; they are on the disk before the response."""
        ids = [uuid.uuid4().hex if new.id is None else new.id for new in body.questions]
        repeated = next((name for name, count in Counter(ids).items() if count > 1), None)
        if repeated is not None:
            raise HTTPException(409, f"id {reprlib.repr(repeated)} is in the request twice")
        return Added(ids=ids, count=await service.ask(AddRequest(ids, [new.text for new in body.questions])))

    @routes.delete("/questions/{id:path}", status_code=204, responses=service.errors(404, 409))
    async def delete(id: str) -> None:
        """Delete a question from the index; the change is on the disk before the response."""
        if not await service.ask(DeleteRequest(id)):
            raise HTTPException(404, f"id {reprlib.repr(id)} is not in the index")


def operator_routes(service: Service) -> APIRouter:
    """GET /health, GET /ready, GET /about, GET /metrics."""
    routes, secured = APIRouter(), APIRouter(dependencies=service.credentials, responses=service.errors())
    index = service.handler.index

    @routes.get("/health")
    async def health() -> Alive:
        """Whether the process is running."""
        return Alive()

    @secured.get("/ready", responses=service.errors(503))
    def ready() -> Ready:
        """Whether questions are answered, by which model, over how many questions."""
        if not service.queue.alive:
            raise HTTPException(503, "the service is starting or stopping")
        count, (threshold, threshold_of) = len(index.questions) if index else None, service.handler.pair_threshold
        return Ready(
            model=service.handler.model.path.name,
            fingerprint=service.handler.model.fingerprint,
            questions=count,
            threshold=threshold,
            threshold_of=threshold_of,
        )

    @secured.get("/about")
    def about() -> About:
        """What the page of this service shows."""
        return About(views=list(service.views), examples=list(service.examples), read_only=service.read_only)

    @secured.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> Response:
        """Requests by path and status, their times, sizes of batches and length of the queue, for Prometheus."""
        return Response(service.monitor.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    routes.include_router(secured)
    return routes
