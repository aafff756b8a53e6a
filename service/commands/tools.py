"""Everything else: keys, benchmarks, the doctor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
import zmq.auth

from acquisition.errors import BadInput
from inference.registry import DEFAULT_MODEL
from service.benchmarks import run_benchmark
from service.commands.doctor import doctor
from service.commands.shared import say


def add_to(app: typer.Typer) -> None:
    for command in (bench, doctor, keys):
        app.command()(command)


def bench(
    what: Annotated[
        str,
        typer.Argument(
            help="live, page, stream, recorder, lab, loop, accuracy, map, integrators, ablations, calibration, "
            "labels, adaptation, refinement, metrology, afm, physics, effects, imprint."
        ),
    ] = "live",
    quick: Annotated[bool, typer.Option("--quick", help="End within 40 s.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of real data.", exists=True)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the rows to this file.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--pictures", help="Also draw into this folder (accuracy, integrators, physics, effects, lab, loop, afm)."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model set that accuracy, integrators judge.")] = None,
    draws: Annotated[
        int | None, typer.Option("--draws", min=1, help="Random instruments that calibration draws; 30 if not given.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="More sets of its recipe: name,name.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=5, help="How long page watches; 600 if not given, 10 with --quick.")
    ] = None,
) -> None:
    """Measure this machine, or a model set, against the fixed list of rows; `physics`, `stream` need the extra `bench`.

    Example: eclips bench accuracy --quick --model classical
    """
    others = [name.strip() for name in seeds.split(",") if name.strip()] if seeds else []
    models = (model or DEFAULT_MODEL, *others) if model or others else ()
    run_benchmark(what, quick, json_file, data, pictures, models, draws, seconds)


def keys(
    folder: Annotated[Path, typer.Argument(help="Where to put the keys.")],
    clients: Annotated[list[str] | None, typer.Option("--client", help="Name of a client; may be repeated.")] = None,
) -> None:
    """Make CURVE keys for a node and its clients, so that they can be on different machines.

    Example: eclips keys ~/eclips-keys --client gpu-box --client office
    """
    folder = folder.expanduser()
    allowed = folder / "allowed-clients"
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty: keys are never overwritten, choose another folder")
    allowed.mkdir(parents=True, exist_ok=True)
    zmq.auth.create_certificates(folder, "node")
    for name in clients or ["client"]:
        public, _ = zmq.auth.create_certificates(folder, name)
        shutil.copy(public, allowed)
    for secret in folder.glob("*.key_secret"):
        secret.chmod(0o600)
    say(f'on the node:    own_key = "{folder}/node.key_secret"    peer_keys = "{allowed}"')
    say(f'on a client:    own_key = ".../NAME.key_secret"    peer_keys = ".../node.key" (copy both from {folder})')
