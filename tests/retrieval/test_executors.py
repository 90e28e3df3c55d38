import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from test_embeddings import OPTIONS, TEXTS, sums, write

import qpairs
from qpairs.core.exceptions import UserError
from qpairs.core.files import sha256
from qpairs.retrieval.embed import embed
from qpairs.retrieval.executors import Executor, Job, WrittenFile, ray_executor, run_serially, workers


def counted(jobs: int) -> Iterator[Job]:
    for k in range(jobs):
        yield Job(f"{k}", [f"text {k}"] * k)


def size(job: Job) -> WrittenFile:
    time.sleep(0.1)
    return WrittenFile(job.file, len(job.texts), os.getpid(), "")


def test_the_plain_engine_makes_one_file_after_the_other() -> None:
    assert [(file.file, file.rows) for file in run_serially(partial(counted, 3), size)] == [
        ("0", 0),
        ("1", 1),
        ("2", 2),
    ]


def test_a_worker_for_each_gpu_or_else_for_each_cpu() -> None:
    assert workers({"CPU": 64.0, "GPU": 8.0}) == (8, {"num_gpus": 1})
    assert workers({"CPU": 6.0, "memory": 1e9}) == (6, {"num_cpus": 1})
    assert workers({}) == (1, {"num_cpus": 1})


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in {"ray", "ray.data", *(name for name in sys.modules if name.split(".")[0] == "ray")}:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'qpairs\[ray\]'"):
        ray_executor()


# On a cluster of two workers


@pytest.fixture(scope="module")
def engine() -> Iterator[Executor]:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers need not import the tests
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray_executor()
    ray.shutdown()


@pytest.fixture(scope="module")
def checkpoint(pairs_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "x"
    qpairs.train(data=str(pairs_csv), encoder="tiny", epochs=0.1, batch_size=16, output=str(output))
    return output


@pytest.fixture(scope="module")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source, q.csv, and of its embeddings by the plain engine."""
    folder = tmp_path_factory.mktemp("plain")
    embed(checkpoint, write(folder / "q.csv", TEXTS), folder / "emb", **OPTIONS)
    return folder


@pytest.mark.ray
def test_two_workers_share_the_jobs(engine: Executor) -> None:
    parts = list(engine(partial(counted, 12), size))
    assert sorted((int(file.file), file.rows) for file in parts) == [(k, k) for k in range(12)]
    assert len({file.encoded for file in parts}) == 2
    assert os.getpid() not in {file.encoded for file in parts}
    assert list(engine(partial(counted, 0), size)) == []


@pytest.mark.ray
def test_ray_makes_the_same_shards_byte_for_byte(
    engine: Executor, checkpoint: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plain)  # relative paths are those of this process
    made = embed(checkpoint, "q.csv", tmp_path / "emb", engine=engine, **OPTIONS)
    assert sums(tmp_path / "emb") == sums(plain / "emb")
    assert made.shards == qpairs.open_shards(plain / "emb").shards


def written(folder: Path, job: Job) -> WrittenFile:
    """Writes the file of a job, but ends the process of the worker that comes to the third one first."""
    if job.file == "2" and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(1)
    (folder / job.file).write_text("".join(job.texts))
    return size(job)


@pytest.mark.ray
def test_a_worker_that_dies_midway_loses_nothing(engine: Executor, tmp_path: Path) -> None:
    parts = list(engine(partial(counted, 8), partial(written, tmp_path)))
    assert sorted((int(file.file), file.rows) for file in parts) == [(k, k) for k in range(8)]
    assert (tmp_path / "died").exists()
    assert [(tmp_path / f"{k}").read_text() for k in range(8)] == [f"text {k}" * k for k in range(8)]


def failing(job: Job) -> WrittenFile:
    raise UserError(f"{job.file}: cannot be written (No space left on device)")


@pytest.mark.ray
def test_what_a_worker_reports_is_one_line(engine: Executor) -> None:
    with pytest.raises(UserError) as raised:
        list(engine(partial(counted, 2), failing))
    assert str(raised.value).endswith(": cannot be written (No space left on device)")
    assert "\n" not in str(raised.value)


@pytest.mark.ray
def test_no_cluster_at_an_address_is_one_line() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        list(ray_executor("127.0.0.1:1")(partial(counted, 1), size))


@pytest.mark.ray
def test_two_workers_find_the_duplicates_of_the_plain_run_and_one_that_dies_loses_none(tmp_path: Path) -> None:
    """In processes that start anew: the cluster's workers import the small sizes from here, and one of them dies."""
    folder = tmp_path / "small"
    folder.mkdir()
    paths = [str(folder), *sys.path]
    (folder / "small_sizes.py").write_text(SMALL_SIZES.format(died=str(tmp_path / "died")))
    script = ON_RAY.format(folder=str(tmp_path), paths=paths)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "died").exists()
    tables = {
        engine: [sha256(tmp_path / engine / f"{name}.csv") for name in ("pairs", "clusters", "kept")]
        for engine in ("plain", "ray")
    }
    assert tables["plain"] == tables["ray"]
    assert (tmp_path / "plain" / "dedupe.json").read_text() == (tmp_path / "ray" / "dedupe.json").read_text()
    assert len((tmp_path / "ray" / "pairs.csv").read_text().splitlines()) > 1000


SMALL_SIZES = """
import os
from pathlib import Path
import pytest
from test_large import small_parts
small_parts(pytest.MonkeyPatch())
class Dying:
    def __init__(self, write):
        self.write = write
    def __call__(self, job):
        if job.file == "pairs/000002.npy" and not Path({died!r}).exists():
            Path({died!r}).touch()
            os._exit(1)
        return self.write(job)
"""
ON_RAY = """
import sys
from pathlib import Path
import small_sizes
import ray
from test_large import VECTORS, a_corpus
from qpairs.retrieval.executors import executor_of
from qpairs.retrieval.large import dedupe_embeddings
def with_a_death(jobs, write):
    return executor_of("ray")(jobs, small_sizes.Dying(write))
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
folder = Path({folder!r})
model, embeddings, _ = a_corpus(folder / "corpus", VECTORS)
for name, engine in (("plain", executor_of("plain")), ("ray", with_a_death)):
    dedupe_embeddings(model, embeddings, folder / name, threshold=0.6, recall=0.99, engine=engine)
"""
