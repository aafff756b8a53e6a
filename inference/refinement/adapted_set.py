"""Adapting to a recorded run, and the candidate as a model set with a card that says where it comes from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from acquisition.errors import BadInput
from acquisition.instrument import Instrument
from acquisition.recording import RecordedRun
from acquisition.recording.verification import digest_of
from inference.networks.finetune import load_finetune
from inference.networks.weights import read_slopes, write_slopes
from inference.refinement.adapt import MOST_STEPS, Adaptation, adapt
from inference.registry import MODELS, ModelCard, find_model_set, read_card, write_card

MOST_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """Adapt set `parent` of `folders` to `run` within `until_s`; `finetune` is the file of its instrument's weights."""

    run: Path
    parent: str
    until_s: float
    instrument: Instrument | None = None
    finetune: Path | None = None
    folders: tuple[Path, ...] = (MODELS,)
    steps: int = MOST_STEPS


def adapt_to_run(asked: Asked, progress: Callable[[int, int], None]) -> Adaptation:
    """On at most 32 frames, spread over the run. Raises `BadInput` as `adapt` does, for an unknown set and for one
    without a slope network."""
    card = find_model_set(asked.parent, *asked.folders)
    parent = read_slopes(card.graph("slopes"))
    recorded = RecordedRun(asked.run)
    if not recorded.sequences:
        raise BadInput(f"{asked.run} holds no frames")
    step = max(1, -(-len(recorded.sequences) // MOST_FRAMES))
    frames = [recorded.read_frame(sequence) for sequence in recorded.sequences[::step]]
    finetune = None if asked.finetune is None else load_finetune(asked.finetune)
    instrument = asked.instrument or recorded.instrument
    return adapt(parent, frames, instrument, progress, finetune, asked.steps, asked.until_s)


def install(found: Adaptation, asked: Asked, folder: Path, command: str) -> ModelCard:
    """The parent's set with the candidate's slopes, in `folder`, whose name becomes the set's. Raises `BadInput` for a
    candidate that was not accepted, and where there is a set already."""
    if not found.verdict.accepted:
        raise BadInput(f"the candidate was not accepted: {found.verdict.reason}")
    if folder.exists():
        raise BadInput(f"{folder} is there already: sets are never overwritten, choose another name")
    parent = find_model_set(asked.parent, *asked.folders)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(parent.folder, beside)
    write_slopes(found.net, parent.graph("slopes"), beside / "slopes.onnx")
    run = RecordedRun(asked.run)
    learned = parent.parts["slopes"]
    part = replace(
        learned,
        command=command,
        data=f"{len(found.adapted_on)} frames of run {asked.run.name} ({digest_of(run)}), on top of {parent.name} "
        f"({learned.sha256[:12]}): {learned.data}",
        hours=found.seconds / 3600.0,
        figures={
            **{f"before_{name}": value for name, value in found.before.tree().items()},
            **{f"after_{name}": value for name, value in found.after.tree().items()},
            "better_by": found.verdict.gain,
            "scatter": found.verdict.scatter,
            "moved_sigma": found.moved_sigma,
            "held_out_frames": float(len(found.held_out)),
        },
    )
    description = f"{parent.name}, its slopes adapted to run {asked.run.name}"
    write_card(ModelCard(folder.name, parent.version, description, {**parent.parts, "slopes": part}, beside))
    # A service that lists sets meanwhile must not find half of one.
    beside.rename(folder)
    return read_card(folder)
