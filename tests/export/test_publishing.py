import base64
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from conftest import refused
from huggingface_hub import constants
from mocks import moved
from sentence_transformers import SentenceTransformer

import qpairs
from qpairs.commands import app
from qpairs.config import Config, to_dict
from qpairs.data.identity import question_digests
from qpairs.data.parts import TRAINED_ON
from qpairs.export import hub as publishing
from qpairs.export.card import model_card, train_command
from qpairs.export.hub import public_config, stage


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as an upload asks for."""

    def answer(self) -> None:
        hub: Any = self.server
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, self.path.partition("?")[0]))
        address = f"http://localhost:{hub.server_port}"
        status, answer = 200, self.reply(hub, address, content)
        if hub.refuses and ("repos/create" in self.path or "preupload" in self.path):
            status, answer = 403, {"error": "You don't have the rights"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def reply(self, hub: Any, address: str, content: bytes) -> Any:
        match [part for part in self.path.partition("?")[0].split("/") if part]:
            case ["api", "whoami-v2"]:
                return {"name": "acme", "type": "user"}
            case ["api", "repos", "create"]:
                hub.made = json.loads(content)
                return {"url": f"{address}/acme/dups"}
            case ["api", "models", "acme", "dups"]:
                return {"id": "acme/dups", "private": hub.private, "siblings": []}
            case ["api", "models", "acme", "dups", "tree", "main"]:
                return [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in hub.there]
            case ["api", "models", "acme", "dups", "preupload", "main"]:
                kinds = {True: "lfs", False: "regular"}
                names = [file["path"] for file in json.loads(content)["files"]]
                return {
                    "files": [
                        {"path": name, "uploadMode": kinds[name.endswith(".safetensors")], "shouldIgnore": False}
                        for name in names
                    ]
                }
            case ["acme", "dups.git", "info", "lfs", "objects", "batch"]:
                objects = json.loads(content)["objects"]
                ways = [{**o, "actions": {"upload": {"href": f"{address}/put/{o['oid']}"}}} for o in objects]
                return {"transfer": "basic", "objects": ways}
            case ["put", identity]:
                hub.large[identity] = content
            case ["api", "models", "acme", "dups", "commit", "main"]:
                for line in map(json.loads, content.splitlines()):
                    value = line["value"]
                    match line["key"]:
                        case "file":
                            hub.files[value["path"]] = base64.b64decode(value["content"])
                        case "lfsFile":
                            hub.files[value["path"]] = hub.large[value["oid"]]
                        case "deletedFile":
                            hub.there.remove(value["path"])
                return {"commitUrl": f"{address}/acme/dups/commit/1", "commitOid": "1", "success": True}
        return {}

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def log_message(self, *details: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("localhost", 0), Hub)
    server.asked, server.files, server.large, server.there = [], {}, {}, []
    server.made, server.private, server.refuses = {}, False, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret-project")
    data = folder / "layoffs.csv"
    data.write_text(pairs_csv.read_text().replace("question1,question2", "ceo,cfo"))
    options = {"data": str(data), "columns": "ceo,cfo,is_duplicate", "encoder": "static", "epochs": 1, "batch_size": 16}
    qpairs.train(**options, output=str(folder / "run"))
    return folder / "run"


@pytest.fixture
def push(run, hub: Any, monkeypatch: pytest.MonkeyPatch):
    """`qpairs push` in this process, to the stand-in."""
    monkeypatch.setattr(constants, "ENDPOINT", f"http://localhost:{hub.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    return partial(run, "push")


def test_the_hub_gets_the_checkpoint_and_its_card_and_nothing_else(hub: Any, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "scored.csv").write_text("mine")
    hub.there = ["head.safetensors", "LICENSE"]
    address = f"http://localhost:{hub.server_port}"
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    command = [sys.executable, "-c", "from qpairs.commands import main; main()", "push", checkpoint, "acme/dups"]
    environment = outside | {"HF_ENDPOINT": address, "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert f"{address}/acme/dups" in result.stdout
    assert hub.made["name"] == "dups"
    assert hub.there == ["LICENSE"]  # weights of another model would be loaded with these
    for name, content in hub.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert set(hub.files) == {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()} - {
        "scored.csv"
    } | {"README.md"}
    texts = ["How do I reset my password?", "b"]
    expected = qpairs.load(checkpoint).encode(texts)
    np.testing.assert_array_equal(qpairs.load(tmp_path).encode(texts), expected)
    assert qpairs.load(tmp_path).fingerprint == qpairs.load(checkpoint).fingerprint
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path)).encode(texts), expected, atol=1e-6)


def test_what_is_uploaded_tells_no_name_and_no_text_of_the_users(
    checkpoint: Path, pairs_csv: Path, tmp_path: Path
) -> None:
    folder = stage(checkpoint, "acme/dups", tmp_path / "dry")
    told = "".join(path.read_text() for path in folder.rglob("*.*") if path.suffix in (".json", ".md"))
    for secret in ("secret-project", "layoffs", "ceo", str(checkpoint.parent)):
        assert secret not in (folder / "README.md").read_text()
        assert secret not in (folder / "qpairs.json").read_text()
    questions = qpairs.load_pairs(pairs_csv).questions
    assert not any(question in told for question in questions if len(question.split()) > 3)


def test_what_tells_which_questions_were_trained_on_is_not_uploaded(checkpoint: Path, tmp_path: Path) -> None:
    model = qpairs.load(checkpoint)
    digests = question_digests(["layoffs?"])
    fitted = {**model.scores, "calibrated_on": {"n": 48, "f1_interval": (0.7, 0.9), "questions": digests}}
    remembered = dataclasses.replace(model, split={**model.split, TRAINED_ON: digests}, scores=fitted)
    remembered.save(tmp_path / "own")
    assert TRAINED_ON in qpairs.load(tmp_path / "own").split
    pushed = qpairs.load(stage(tmp_path / "own", "acme/dups", tmp_path / "dry"))
    assert pushed.split == model.split
    assert pushed.scores["calibrated_on"] == {"n": 48, "f1_interval": [0.7, 0.9]}
    assert all(digests not in file.read_text() for file in (tmp_path / "dry").glob("*.json"))


def test_the_card_tells_data_split_threshold_scores_limits_and_command(checkpoint: Path, tmp_path: Path) -> None:
    folder = stage(checkpoint, "acme/dups", tmp_path / "dry")
    model = qpairs.load_checkpoint(checkpoint)
    head, body = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    metadata, test = yaml.safe_load(head), model.scores["test"]
    assert metadata["library_name"] == "sentence-transformers"
    assert "license" not in metadata
    assert "base_model" not in metadata  # made from nothing
    metrics = {m["type"]: m["value"] for m in metadata["model-index"][0]["results"][0]["metrics"]}
    assert metrics["f1"] == pytest.approx(test["f1"], abs=1e-4)
    low, high = test["f1_interval"]
    for words in (
        f"{model.verdict.pair.threshold:.4f}",
        f"**{test['f1']:.3f}**",
        f"{low:.3f} to {high:.3f}",
        f"| in a corpus of these {test['corpus']['n']:,} questions, all pairs | {test['corpus']['f1']:.3f} | ",
        "all duplicate",
        "TF-IDF",
        f"{model.split['sizes']['train']:,}",
        model.split["fingerprint"],
        "does not transfer",
        "vocabulary was built from the training questions",
        "qpairs train --data DATA.csv --columns TEXT1,TEXT2,LABEL --encoder static --batch-size 16",
        f"torch {model.versions['torch']}",
    ):
        assert words in body


def test_the_command_of_the_card_is_one_that_qpairs_takes() -> None:
    config = Config(data=("a.csv", "b c.csv"), encoder="lstm", symmetric=False, epochs=2.0, learning_rate=1e-3, mined=3)
    command = train_command(config)
    assert command.startswith("qpairs train --data a.csv --data 'b c.csv' --encoder lstm --no-symmetric ")
    known = {
        option for p in typer.main.get_command(app).commands["train"].params for option in (*p.opts, *p.secondary_opts)
    }  # type: ignore[attr-defined]
    assert set(re.findall(r"--[\w-]+", command)) <= known


def test_public_names_stay_and_others_go(tmp_path: Path) -> None:
    config = Config(
        data=("sample", "quora", "owner/name:part[train]", str(tmp_path / "x.parquet"), "x/y.csv", str(tmp_path)),
        validation=("dev.tsv",),
        encoder=f"lstm+{tmp_path}",
        vectors="my/vectors.txt",
        teacher=("minilm", "itself", str(tmp_path)),
        drop_suspects=str(tmp_path / "suspects.csv"),
        columns=("title", "body"),
        labels=("vip=1", "other=0"),
        imports=(str(tmp_path / "readers.py"),),
        output="runs/x",
    )
    public = public_config(config)
    assert public.data == ("sample", "quora", "owner/name:part[train]", "DATA.parquet", "DATA.csv", "DATA")
    assert (public.validation, public.encoder, public.vectors, public.output) == (
        ("VALIDATION.tsv",),
        "lstm+ENCODER",
        "VECTORS.txt",
        "",
    )
    assert (public.teacher, public.drop_suspects) == (("minilm", "itself", "TEACHER"), "SUSPECTS.csv")
    assert not any(own in str(to_dict(public)) for own in ("title", "vip", "readers", "my/", str(tmp_path)))
    assert public_config(Config(data=("a.csv",), unlabelled=True, text_column="customer_note")).text_column == "TEXT"
    assert public_config(Config(encoder="BAAI/bge-small-en-v1.5")).encoder == "BAAI/bge-small-en-v1.5"


def test_the_card_of_a_threshold_that_was_fitted_elsewhere_and_of_a_run_without_test(checkpoint: Path) -> None:
    model = qpairs.load_checkpoint(checkpoint)
    model = moved(
        dataclasses.replace(model, config=dataclasses.replace(model.config, encoder="minilm")), threshold=0.25
    )
    scores = {"validation": model.scores["validation"], "calibrated_on": {"n": 48, "f1_interval": (0.7, 0.9)}}
    card = model_card(dataclasses.replace(model, scores=scores), "acme/dups")
    assert "cross-fitted" in card
    assert "fitted to 48 pairs of another place, where F1 is 0.700 to 0.900" in card
    assert "- sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert "103,663 Quora triplets" in card


def test_a_private_model_is_made_private_or_refused(push, hub: Any, checkpoint: Path) -> None:
    refused(push(checkpoint, "acme/dups", "--private"), "acme/dups", "public")
    assert hub.made["visibility"] == "private"
    assert hub.files == {}


def test_a_hub_that_refuses_is_one_line(push, hub: Any, checkpoint: Path) -> None:
    hub.refuses = True
    refused(push(checkpoint, "acme/dups"), "403", "You don't have the rights", "hf auth whoami")


def test_no_network_is_one_line(push, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:9")
    refused(push(checkpoint, "acme/dups"), "cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(push(checkpoint, "acme/dups"), "cannot be reached", "OfflineModeIsEnabled")


def test_no_token_and_bad_names_are_one_line(
    run,
    hub: Any,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "get_token", lambda: None)
    refused(run("push", checkpoint, "acme/dups"), "hf auth login")
    for name in ("dups", "acme/", "a/b/c", "acme/du ps"):
        refused(run("push", checkpoint, name), "OWNER/NAME")
        refused(run("push", checkpoint, name, "--dry-run", "dry"), "OWNER/NAME")
    refused(run("push", "runs/none", "acme/dups"), "no such checkpoint")
    assert list(Path().iterdir()) == []


def test_a_dry_run_writes_the_folder_and_sends_nothing(run, hub: Any, checkpoint: Path) -> None:
    result = run("push", checkpoint, "acme/dups", "--dry-run", "dry")
    assert result.code == 0, result.err
    assert "nothing was uploaded" in result.out
    assert (Path("dry") / "README.md").exists()
    refused(run("push", checkpoint, "acme/dups", "--dry-run", "dry"), "not empty")
    assert hub.asked == []
