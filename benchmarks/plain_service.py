"""The service that one builds by hand: FastAPI and sentence-transformers, a question a request; for `serve.py`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer, util


class Query(BaseModel):
    """A question, and how many near ones are wanted."""

    question: str
    k: int = 10


def create_app(encoder: SentenceTransformer, vectors: torch.Tensor, questions: list[str]) -> FastAPI:
    """POST /search, by a function that FastAPI runs in a thread; all questions are compared."""
    app = FastAPI()

    @app.post("/search")
    def search(query: Query) -> dict[str, Any]:
        asked = encoder.encode(query.question, convert_to_tensor=True, show_progress_bar=False)
        hits = util.semantic_search(asked, vectors, top_k=query.k)[0]
        return {"hits": [{"text": questions[int(hit["corpus_id"])], "similarity": hit["score"]} for hit in hits]}

    return app


def main(
    encoder: Annotated[Path, typer.Argument(help="Folder of a SentenceTransformer.")],
    vectors: Annotated[Path, typer.Argument(help="NumPy file of the vectors of the questions.")],
    questions: Annotated[Path, typer.Argument(help="The questions, one a line.")],
) -> None:
    """Serves on a free port, whose address is printed."""
    app = create_app(
        SentenceTransformer(str(encoder), device="cpu"),
        torch.from_numpy(np.load(vectors)),
        questions.read_text(encoding="utf-8").split("\n"),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    typer.run(main)
