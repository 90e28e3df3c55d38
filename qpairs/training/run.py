"""A run of training: its config, its data, and the folders that it writes.

While it runs, its states are in OUTPUT.partial, from which an interrupted run is resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qpairs.config import CROSS_ENCODER, Config, config_from, read_toml, to_dict, to_toml
from qpairs.core.exceptions import UserError
from qpairs.core.files import LOCK, exclusive_lock, hold_output, read_text, visible, write_text, writing
from qpairs.core.manifests import parse_json, read_json
from qpairs.core.progress import OnProgress, ignore
from qpairs.core.shapes import flag, record, text
from qpairs.core.shell import shown_command
from qpairs.data.parts import Parts
from qpairs.data.records import IN_MEMORY
from qpairs.models.base import FILE, check_output
from qpairs.models.model_file import read_model_file
from qpairs.models.unfinished import SPLIT, is_interrupted, numbered, partial_of
from qpairs.training.distributed import barrier, broadcast, rank, rank_zero_first

log = logging.getLogger(__name__)

CONFIG = "config.toml"
SPEED = "bf16.json"  # whether bfloat16 is fast on the machine


@dataclass(frozen=True)
class Run:
    """What all stages of a run share.

    Attributes:
        config: the choices.
        parts: the data.
        folder: for unfinished work.
        on_progress: called at every step.
    """

    config: Config
    parts: Parts
    folder: Path
    on_progress: OnProgress = ignore


def default_output(config: Config) -> Path:
    """The first free folder runs/DATA-ENCODER, runs/DATA-ENCODER-2, ...; the name also says what else it contains."""
    kind = [CROSS_ENCODER] if config.model == CROSS_ENCODER else ["reranker"] if config.reranker else []
    data = "given" if config.data[0].startswith(IN_MEMORY) else Path(config.data[0]).stem
    name = "-".join([data, Path(config.encoder).stem, *kind])
    return next(
        folder for folder in numbered(Path("runs") / name) if not folder.exists() and not partial_of(folder).exists()
    )


def run_config(options: Mapping[str, Any], *, resume: bool) -> Config:
    """The config of a run, with its output folder: from the options, or that of the interrupted run to resume.

    Raises:
        UserError: a bad option; or nothing to resume, or an option that differs from the interrupted run's.
    """
    config = config_from(options, where="train")
    if not resume:
        output = Path(config.output) if config.output else broadcast(default_output(config))
        return dataclasses.replace(config, output=str(output))
    if not config.output:
        raise UserError("resume: name the interrupted run's folder with --output")
    folder = partial_of(Path(config.output))
    if not is_interrupted(folder) and (Path(config.output) / FILE).exists():
        raise UserError(
            f"{config.output}: this run is finished, so there is nothing to resume; train again with --overwrite, or "
            f"evaluate it: {shown_command('qpairs', 'evaluate', config.output)}"
        )
    if not is_interrupted(folder):
        raise UserError(f"{folder}: no interrupted run to resume")
    stored = config_from(read_toml(folder / CONFIG), where=str(folder / CONFIG))
    asked, kept = to_dict(config), to_dict(stored)
    if changed := [name for name in options if asked.get(name) != kept.get(name)]:
        raise UserError(
            f"{folder}: the interrupted run has another {changed[0]} ({kept.get(changed[0])!r}); resume without that "
            "option, or start again with --overwrite"
        )
    return stored


def check_run(config: Config, *, resume: bool, overwrite: bool) -> None:
    """Raises UserError if a run cannot report or write its results, before any work is done."""
    if config.report_to != "none" and importlib.util.find_spec(config.report_to) is None:
        raise UserError(f"report_to: {config.report_to} is not installed; pip install {config.report_to}")
    output = Path(config.output)
    check_output(output, overwrite=overwrite)
    folder = partial_of(output)
    if is_interrupted(folder) and not (resume or overwrite):
        raise UserError(
            f"{folder}: an unfinished run is here; resume it with --resume, or start again with --overwrite"
        )
    if folder.exists() and not (is_interrupted(folder) or _is_own(folder)):
        raise UserError(
            f"{folder}: is needed for the states of this run, but exists; name another folder with --output"
        )


@contextlib.contextmanager
def open_run(run: Run, *, resume: bool) -> Iterator[None]:
    """Locks the folder of a run, and empties it unless the run is resumed; removes the folder when the block succeeds.

    Raises:
        UserError: another process has locked the folder; or the data has changed since the run was interrupted.
    """
    from qpairs.encoders.precision import decided_before

    barrier()  # no process writes before all have read what is in the folders
    with exclusive_lock(run.folder) if rank() == 0 else contextlib.nullcontext(), writing(run.folder):
        if rank() == 0 and not resume:
            _clear(run.folder)
            write_text(run.folder / CONFIG, to_toml(run.config))
            write_text(run.folder / SPLIT, json.dumps(run.parts.split))  # from here on the run can be resumed
        fast = _fast_in_bf16(run.folder)
        if _read_split(run.folder)["fingerprint"] != run.parts.split["fingerprint"]:
            raise UserError(
                f"{run.folder}: the data has changed since the run was interrupted; start again with --overwrite"
            )
        try:
            with decided_before(fast):
                yield
        except KeyboardInterrupt:
            go_on = shown_command("qpairs", "train", "--resume", "--output", run.config.output)
            log.warning("interrupted; to resume from the last evaluation (before the first: from the start): %s", go_on)
            raise
        barrier()  # no process reads in the folder any more
        if rank() == 0:
            remove_run(run.folder)
        barrier()


def _fast_in_bf16(folder: Path) -> bool:
    """Whether bfloat16 was fast when the run began: the same in all its processes, and when it is resumed."""
    from qpairs.encoders.precision import transformers_fast_in_bf16

    with rank_zero_first():
        if not (folder / SPEED).exists():
            write_text(folder / SPEED, json.dumps(transformers_fast_in_bf16()))
        return bool(parse_json(read_text(folder / SPEED), flag, where=str(folder / SPEED)))


def remove_run(folder: Path) -> None:
    """Removes the folder of a finished run, so that one killed meanwhile is not mistaken for an interrupted run."""
    with contextlib.suppress(OSError):
        (folder / SPLIT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def saved_before(config: Config) -> str | None:
    """The output of a run that was killed after saving, while its folder was being removed; the folder is removed now.

    None if the run must continue. All processes of a run call it.
    """
    saved = broadcast(is_saved(config) if rank() == 0 else False)
    barrier()  # no process reads in the folder any more
    if saved and rank() == 0:
        remove_run(partial_of(Path(config.output)))
        with contextlib.suppress(UserError), hold_output(Path(config.output)):
            pass  # what was left beside the model goes
    barrier()
    return config.output if saved else None


def is_saved(config: Config) -> bool:
    """Whether the model of an interrupted run is in place: the run was killed while its folder was being removed."""
    file, split = Path(config.output) / FILE, partial_of(Path(config.output)) / SPLIT
    if not (file.exists() and split.exists() and file.stat().st_mtime_ns >= split.stat().st_mtime_ns):
        return False
    made = read_model_file(file.parent, lambda data: (data.get("config"), data.get("split", {})), missing="")
    return made[0] == to_dict(config) and made[1].get("fingerprint") == _read_split(split.parent)["fingerprint"]


def _is_own(folder: Path) -> bool:
    """Whether a folder is from a run that was killed as it began, or while its folder was being emptied."""
    return folder.is_dir() and ((folder / CONFIG).exists() or not visible(folder))


def _read_split(folder: Path) -> dict[str, Any]:
    shape = record({"fingerprint": text}, others=True)
    missing = f"{folder}: no interrupted run to resume"
    return dict(read_json(folder / SPLIT, shape, missing=missing, mend="start again with --overwrite"))


def _clear(folder: Path) -> None:
    (folder / SPLIT).unlink(missing_ok=True)  # first: from now on there is nothing to resume
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == CONFIG):  # which says whose folder it is
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
