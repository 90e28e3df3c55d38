import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from children import start_script
from conftest import write_csv
from safetensors.torch import load_file
from torch import multiprocessing

import qpairs
from qpairs.config import Config, config_from
from qpairs.core.exceptions import UserError
from qpairs.core.files import hold_output
from qpairs.data.pairs import pairs_from_texts
from qpairs.training import distributed as processes
from qpairs.training.batches import Batches, TokenizedQuestions
from qpairs.training.run import check_run
from qpairs.training.samplers import sequential_sampler

WORLD, N, D = 2, 5, 3
ROOT = Path(__file__).parents[2]


def encode(weight: torch.Tensor, questions: torch.Tensor) -> torch.Tensor:
    return torch.tanh(questions @ weight)


def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
    return (embeddings @ embeddings.T).exp().sum()  # every question meets every other one


def one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    random = torch.Generator().manual_seed(0)
    questions = torch.randn(N, D, generator=random)
    weight = torch.randn(D, D, generator=random).requires_grad_()
    embeddings = processes.gather(encode(weight, questions[rank::WORLD]), N)
    loss_of(embeddings).backward()
    torch.distributed.all_reduce(weight.grad)
    torch.rand(1 + rank)  # dropout in a share of another size
    with processes.same_draws(7):
        drawn = torch.rand(3).tolist()
    with processes.rank_zero_first():
        order = Path(folder, "order").read_text() if Path(folder, "order").exists() else ""
        Path(folder, "order").write_text(f"{order}{rank}")
    seen = {
        "embeddings": embeddings.tolist(),
        "gradient": (weight.grad / WORLD).tolist(),
        "value": processes.broadcast(rank),
        "drawn": drawn,
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


def test_gathered_embeddings_and_gradients_are_those_of_a_single_process(tmp_path: Path) -> None:
    multiprocessing.start_processes(one_of_two, (str(tmp_path),), nprocs=WORLD, start_method="forkserver")
    random = torch.Generator().manual_seed(0)
    questions = torch.randn(N, D, generator=random)
    weight = torch.randn(D, D, generator=random).requires_grad_()
    embeddings = encode(weight, questions)
    loss_of(embeddings).backward()
    everything = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(WORLD)]
    assert everything[0]["drawn"] == everything[1]["drawn"]
    for seen in everything:
        torch.testing.assert_close(torch.tensor(seen["embeddings"]), embeddings.detach())
        torch.testing.assert_close(torch.tensor(seen["gradient"]), weight.grad)
        assert seen["value"] == 0
    assert (tmp_path / "order").read_text() == "01"


def test_a_single_process_gathers_what_it_has() -> None:
    share = torch.randn(4, 3)
    assert processes.gather(share, 4) is share
    assert (processes.world(), processes.rank(), processes.broadcast("x")) == (1, 0, "x")


def test_each_process_gets_the_inputs_of_its_share_and_the_labels_of_all() -> None:
    texts = [f"question {i}" for i in range(14)]
    pairs = pairs_from_texts(texts[:7], texts[7:], [0, 1] * 3 + [0])
    ids = [torch.full((1 + i % 3,), i).numpy() for i in range(14)]
    tokens = TokenizedQuestions(ids, lambda chosen: {"first": torch.tensor([int(one[0]) for one in chosen])})

    def items(count: int) -> list[dict]:
        batches = Batches(pairs, [tokens], sequential_sampler(torch.ones(7).long().numpy(), 4), processes=count)
        return [batches[i] for i in range(len(batches))]

    def questions(item: dict) -> list[int]:
        return torch.cat([chunk["first"] for chunk in item["rows"]["features"]]).tolist()

    whole, shares = items(1), items(2)
    assert len(shares) == 2 * len(whole)
    for step, item in enumerate(whole):
        both = shares[2 * step : 2 * step + 2]
        assert [questions(share) for share in both] == [questions(item)[0::2], questions(item)[1::2]]
        for name in ("left", "right", "labels"):
            assert all(share[name].equal(item[name]) for share in both)
        for name in ("positive", "labelled", "unrelated", "known_pairs"):
            assert all(share["known"][name].equal(item["known"][name]) for share in both)


def test_a_process_without_a_question_encodes_one_to_keep_step() -> None:
    pairs = pairs_from_texts(["how"], ["why"], [0])
    ids = [torch.tensor([i]).numpy() for i in range(2)]
    tokens = TokenizedQuestions(ids, lambda chosen: {"first": [int(one[0]) for one in chosen]})
    batches = Batches(pairs, [tokens], sequential_sampler(torch.ones(1).long().numpy(), 4), processes=3)
    assert [batches[i]["rows"]["features"] for i in range(3)] == [[{"first": [q]}] for q in (0, 1, 0)]


def checks_in_turn(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    config = config_from({"output": f"{folder}/run"})
    processes.check_once(lambda: slowly(check_run, config))
    Path(folder, "run").write_text("a file")
    processes.barrier()
    with pytest.raises(UserError, match="run: is a file"):
        processes.check_once(lambda: slowly(check_run, config))
    Path(folder, f"checked-{rank}").touch()
    torch.distributed.destroy_process_group()


def slowly(check: Callable, config: Config) -> None:
    """Checks a run, and holds its output for long enough that a second process would find it held."""
    with hold_output(Path(config.output)):
        time.sleep(0.3)
        check(config, resume=False, overwrite=False)


def test_processes_of_one_run_do_not_meet_each_others_lock(tmp_path: Path) -> None:
    multiprocessing.start_processes(checks_in_turn, (str(tmp_path),), nprocs=WORLD, start_method="forkserver")
    assert all((tmp_path / f"checked-{rank}").exists() for rank in range(WORLD))


LOSS = {"loss": "2*online_contrastive + info_nce"}


def with_torchrun(options: dict[str, Any], folder: Path) -> None:
    """The command, as a user starts it; one process prints."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [*torchrun, str(ROOT / "cli.py"), "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Saved in") == 1


def with_forks(options: dict[str, Any], folder: Path) -> None:
    """The same in two processes that need not import the libraries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(WORLD)}
    words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(WORLD)]
    script = "from qpairs.commands import main; main()"
    started = [start_script(script, "train", *words, cwd=folder, env=place | rank) for rank in ranks]
    ended = [process.wait() for process in started]
    assert [process.returncode for process in ended] == [0] * WORLD, "\n".join(process.stderr for process in ended)
    assert sum(process.stdout.count("Saved in") for process in ended) == 1


@pytest.mark.parametrize(
    ("encoder", "more", "start"),
    [
        pytest.param("lstm+static", LOSS, with_torchrun, marks=pytest.mark.slow),
        ("lstm+static", LOSS, with_forks),
        ("tiny", LOSS, with_forks),
        ("bert", LOSS, with_forks),  # has parameters that take no part
        ("tiny", {"model": "cross-encoder"}, with_forks),
    ],
)
def test_two_processes_train_what_one_does(
    encoder: str,
    more: dict,
    start: Callable[[dict[str, Any], Path], None],
    sample_rows: list,
    small_bert: Path,
    tmp_path: Path,
) -> None:
    """A whole run in two processes: same batches, same loss, same steps, up to rounding."""
    encoder = str(small_bert) if encoder == "bert" else encoder
    data = write_csv(tmp_path / "pairs.csv", sample_rows)
    options = {"encoder": encoder, **more, "dropout": 0.0, "batch_size": 16, "epochs": 0.1}
    options |= {"max_length": 16, "precision": "fp32"}  # in bfloat16 they differ by more than rounding
    qpairs.train(data=str(data), output=str(tmp_path / "one"), **options)
    start({"data": str(data), "output": str(tmp_path / "two"), **options}, tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    weights = {}
    for name in ("one", "two"):
        files = sorted((tmp_path / name).rglob("*.safetensors"))
        weights[name] = {f"{f.relative_to(tmp_path / name)} {k}": v for f in files for k, v in load_file(f).items()}
    assert weights["one"].keys() == weights["two"].keys()
    assert any("pooler" in name for name in weights["one"]) == (encoder == str(small_bert))  # not trained
    for name, weight in weights["one"].items():
        torch.testing.assert_close(weights["two"][name], weight, atol=1e-5, rtol=1e-4)
