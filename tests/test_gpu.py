"""What only a CUDA device can show; run with pytest -m gpu."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import qpairs
from qpairs.encoders.build import build_encoder
from qpairs.encoders.dropout import set_dropout
from qpairs.encoders.packed import pack, packed_outputs
from qpairs.encoders.tokens import embed, features, token_ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_checkpoint_trained_on_a_gpu_gives_the_same_verdicts_on_a_cpu(pairs_csv: Path, tmp_path: Path) -> None:
    trained = qpairs.train(data=str(pairs_csv), encoder="minilm", output=str(tmp_path / "x"))
    loaded = qpairs.load_checkpoint(tmp_path / "x")
    loaded.encoder.to("cpu")
    ids = token_ids(loaded.encoder, ["How do I reset my password?", "Where is my parcel?"])
    on_cpu = embed(loaded.encoder, ids)
    on_gpu = embed(trained.encoder.to("cuda"), ids)
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_tokens_give_the_vectors_and_gradients_of_the_encoder(dtype: torch.dtype) -> None:
    encoder = build_encoder("minilm").to("cuda").train()
    set_dropout(encoder, 0.0)
    ids = token_ids(encoder, ["How do I reset my password?", "Where is my parcel?", "Why?"])
    found = []
    for make, embed_them in ((features, lambda given: encoder(given)["sentence_embedding"]), (pack, None)):
        given = make(encoder, ids) if make is features else make(ids)
        given = {name: value.to("cuda") if torch.is_tensor(value) else value for name, value in given.items()}
        encoder.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            vectors = embed_them(given) if embed_them else packed_outputs(encoder, given)["sentence_embedding"]
        vectors.float()[:, 0].sum().backward()
        found.append((vectors.detach().float(), encoder[0].model.embeddings.word_embeddings.weight.grad))
    share = 1e-3 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found[1][0], found[0][0], atol=share, rtol=0)
    assert (found[1][1] - found[0][1]).norm() < share * found[0][1].norm()


def test_a_gradient_cache_keeps_the_memory_of_a_large_batch_flat(tmp_path: Path) -> None:
    peaks = {}
    for cache in (0, 256):
        torch.cuda.reset_peak_memory_stats()
        name = str(tmp_path / str(cache))
        qpairs.train(encoder="minilm", loss="info_nce", batch_size=2048, epochs=0.5, gradient_cache=cache, output=name)
        peaks[cache] = torch.cuda.max_memory_allocated()
    assert peaks[256] < peaks[0] / 2


@pytest.mark.slow
def test_an_epoch_over_400_000_pairs_takes_twenty_seconds_at_most(tmp_path: Path) -> None:
    """Half of the goal, so that a regression is seen; without loading and evaluation."""
    marks = []

    def on_progress(now: object) -> None:
        marks.append((time.monotonic(), now.done))

    options = {"batch_size": 512, "epochs": 20.0, "evaluations": 1, "output": str(tmp_path / "x")}
    qpairs.train(encoder="minilm", on_progress=on_progress, **options)
    middle = [mark for mark in marks if 20 <= mark[1] <= 200]
    (start, first), (end, last) = middle[0], middle[-1]
    assert (last - first) * 512 / (end - start) > 20_000
