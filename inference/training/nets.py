"""The networks of the method by name: what each learns, how long, and which slot its graph fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from acquisition.errors import BadInput
from acquisition.instrument import Instrument, load_instrument
from inference.networks.dsm import Dsm
from inference.networks.export import export_finetune, export_integrator, export_rerender, export_slopes, export_vft
from inference.networks.finetune import FinetuneNet, save_finetune
from inference.networks.integrator import IntegratorNet
from inference.networks.slopes import SlopeNet
from inference.networks.vft import Vft, save_vft
from inference.networks.weights import read_rerender, read_slopes
from inference.registry import SLOTS, ModelCard, Part, find_model_set
from inference.training.dsm import DsmLesson
from inference.training.finetune import FinetuneLesson
from inference.training.integrator import IntegratorLesson
from inference.training.labelled import SHARE, with_labels
from inference.training.mismatched import beside_faultless, mismatched
from inference.training.model_set import install_alone, install_part, like_classical
from inference.training.run import Lesson, Recipe, logged, train
from inference.training.slopes import SlopeLesson
from inference.training.vft import VftLesson


@dataclass(frozen=True, slots=True)
class Net:
    """`lesson` takes the folder of the set that the graph becomes part of: some learn on what the others give. `recipe`
    is the full one, `quick` one of about a minute. A net whose `slot` no model set has stands alone in the folder of
    that name. `of_instrument` is the lesson of a net that is one instrument's own. `read` gives a network back from its
    graph."""

    slot: str
    lesson: Callable[[Path], Lesson]
    export: Callable[[nn.Module, Path], None]
    recipe: Recipe
    quick: Recipe
    data: str
    of_instrument: Callable[[Instrument], Lesson] | None = None
    read: Callable[[Path], nn.Module] | None = None


FRAMES = "simulated frames: fourteen families of surfaces, 64 detector geometries, N from 50 to 100 000"


def _export_slopes(net: nn.Module, path: Path) -> None:
    assert isinstance(net, SlopeNet)
    export_slopes(net, path)


def _export_integrator(net: nn.Module, path: Path) -> None:
    assert isinstance(net, IntegratorNet)
    export_integrator(net, path)


def _export_rerender(net: nn.Module, path: Path) -> None:
    assert isinstance(net, Dsm)
    export_rerender(net, path)


def _export_vft(net: nn.Module, path: Path) -> None:
    assert isinstance(net, Vft)
    export_vft(net, path)
    save_vft(net, path.with_suffix(".pt"))


def _export_finetune(net: nn.Module, path: Path) -> None:
    assert isinstance(net, FinetuneNet)
    export_finetune(net, path)
    save_finetune(net, path.with_suffix(".pt"))


NETS: Mapping[str, Net] = {
    "slopes": Net(
        slot="slopes",
        lesson=lambda folder: SlopeLesson(),
        export=_export_slopes,
        recipe=Recipe(),
        quick=Recipe(samples=1_400, size_px=64, batch=8, width=16, depth=3, validation_batches=8),
        data=FRAMES,
        read=read_slopes,
    ),
    "pinn": Net(
        slot="integrate",
        lesson=IntegratorLesson,
        export=_export_integrator,
        recipe=Recipe(
            samples=120_000,
            batch=8,
            width=16,
            depth=3,
            blocks=1,
            muon_rate=1.5e-3,
            adam_rate=5e-4,
            validation_batches=24,
        ),
        quick=Recipe(samples=2_400, width=8, depth=3, blocks=1, validation_batches=4),
        data=f"slopes that the set's own graphs and classical ones give for {FRAMES}",
    ),
    "dsm": Net(
        slot="rerender",
        lesson=lambda folder: DsmLesson(),
        export=_export_rerender,
        recipe=Recipe(samples=60_000, width=16, depth=3, muon_rate=4e-3, adam_rate=2e-3),
        quick=Recipe(samples=1_024, width=8, depth=3, blocks=1, validation_batches=4),
        data="BSESM's images of fourteen families of surfaces, up to five times as steep, 64 detector geometries",
        read=read_rerender,
    ),
    "vft": Net(
        slot="vft",
        lesson=lambda folder: VftLesson(),
        export=_export_vft,
        recipe=Recipe(samples=100_000, width=16, depth=1, muon=False, adam_rate=2e-3),
        quick=Recipe(samples=768, width=8, depth=1, muon=False, adam_rate=2e-3, validation_batches=4),
        data="exact horizons on fourteen families of surfaces, up to five times as steep, 64 detector geometries",
    ),
    "finetune": Net(
        slot="finetune",
        lesson=lambda folder: FinetuneLesson(mismatched()),
        export=_export_finetune,
        recipe=Recipe(samples=1_024, batch=4, width=16, muon=False, adam_rate=1e-2, validation_batches=4),
        quick=Recipe(samples=256, size_px=64, batch=4, width=8, muon=False, adam_rate=2e-2, validation_batches=4),
        data="frames of one instrument with faults, 16 fused, of fourteen families of surfaces",
        of_instrument=lambda instrument: FinetuneLesson(beside_faultless(instrument)),
    ),
}


def find_net(name: str) -> Net:
    """Raises `BadInput` for an unknown name."""
    if name not in NETS:
        raise BadInput(f"{name!r} cannot be trained; known: classical, {', '.join(NETS)}")
    return NETS[name]


def train_and_install(
    name: str,
    state: Path,
    recipe: Recipe,
    models: Path,
    set_name: str,
    processes: int,
    progress: Callable[[int, int], None],
    until_s: float,
    instrument: Path | None = None,
    labels: Sequence[Path] = (),
    labels_share: float = SHARE,
) -> ModelCard:
    """Train network `name`, or go on where the run in `state` stopped, and put it into its slot of a set, or where it
    stands alone. `instrument` is the file of the one whose own it is to be; `labels` are files of labelled frames that
    make `labels_share` of the examples.

    Raises `BadInput` for an unknown name, when `state` holds a run of another recipe, for a net that is the same for
    all instruments, and for an unusable instrument file.
    """
    net = find_net(name)
    own = _of_instrument(net, instrument) if instrument else None
    in_set = net.slot in SLOTS
    folder = like_classical(models / set_name) if in_set else models / net.slot
    lesson = own or net.lesson(folder)
    if labels:
        lesson = with_labels(name, lesson, labels, labels_share)
    trained = train(lesson, state, recipe, processes, progress, until_s)
    figures = logged(state)[-1]
    part = Part(
        command=f"eclips train {name} --samples {recipe.samples} --seed {recipe.seed}"
        + (f" --name {set_name}" if in_set else "")
        + (f" --instrument {instrument}" if instrument else "")
        + "".join(f" --labels {file.name}" for file in labels)
        + (f" --labels-share {labels_share:g}" if labels else ""),
        data=net.data
        + (f"; {100 * labels_share:g} % labelled frames: {', '.join(file.name for file in labels)}" if labels else ""),
        seed=recipe.seed,
        hours=figures.pop("hours"),
        figures=figures,
    )

    def write(path: Path) -> None:
        net.export(trained, path)

    return install_part(folder, net.slot, write, part) if in_set else install_alone(folder, write, part)


def write_again(name: str, models: Path, set_name: str) -> ModelCard:
    """The graph of network `name` in an installed set, written anew from its own weights by the exporter as it is now:
    the same network, and what it was trained on and reached stays on its card; the hash is new.

    Raises `BadInput` for a set that is not installed and for a network that cannot be read from its graph.
    """
    net = find_net(name)
    if net.read is None:
        readable = ", ".join(other for other, that in NETS.items() if that.read)
        raise BadInput(f"{name} cannot be written again from its graph; {readable} can")
    card = find_model_set(set_name, models)
    found = net.read(card.graph(net.slot))
    part, written = card.parts[net.slot], f"eclips train {name} --again --name {set_name}"
    if not part.command.endswith(written):
        part = replace(part, command=f"{part.command}; {written}")
    return install_part(card.folder, net.slot, lambda path: net.export(found, path), part)


def _of_instrument(net: Net, file: Path) -> Lesson:
    if net.of_instrument is None:
        own = ", ".join(name for name, other in NETS.items() if other.of_instrument)
        raise BadInput(f"{net.slot} is the same for all instruments: leave out --instrument, or train {own}")
    return net.of_instrument(load_instrument(file))
