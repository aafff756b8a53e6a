"""The commands a node understands: the one list that control socket, REST and page share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acquisition.control_lock import SERVICE, Place
from acquisition.device_commands import DeviceCommands
from acquisition.devices import ScanRequest
from acquisition.errors import BadInput, RequestRefused
from acquisition.model_order import MAX_NAME_CHARACTERS
from acquisition.node import AcquisitionNode
from acquisition.recipe_ports import LabPorts
from acquisition.recipes.parsing import MOST_CHARACTERS, parse_recipe, recipe_of
from acquisition.recipes.runner import RecipeRunner
from acquisition.recipes.steps import Recipe, Start
from acquisition.replay import ReplaySource
from acquisition.run_plan import CUT_SHORT, MAX_FRAMES, RunPlan
from acquisition.status import status_tree

MAX_PROBLEMS = 10
NO_SIGN_OF_LIFE = ("status", "control_hold", "control_leave")
"""What programs send by themselves."""
FuseFrames = Annotated[int, Field(ge=0, le=1024)]
FrameNumber = Annotated[int, Field(ge=0, le=MAX_FRAMES)]
Side = Annotated[int, Field(ge=16, le=8192)]
Metres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StartRun(BaseModel):
    """What a run may be asked to be; what is left out is as the settings say. A pixel size that neither gives stays as
    the microscope stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    record: bool = True
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] | None = None
    width_px: Side | None = None
    height_px: Side | None = None
    pixel_size_m: Metres | None = None
    name: Annotated[str, Field(max_length=80)] = "run"
    notes: Annotated[str, Field(max_length=10_000)] = ""
    keep_truth: bool = False
    hold_after: bool = False
    fuse_frames: FuseFrames | None = None


class StartReplay(BaseModel):
    """`run` is a run's name in the runs folder, or a path. `first` and `last` are frame numbers, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    run: Annotated[str, Field(min_length=1, max_length=1000)]
    speed: Annotated[str, Field(max_length=20)] = "1"
    loop: bool = False
    first: FrameNumber = 0
    last: FrameNumber | None = None
    record: bool = False
    fuse_frames: FuseFrames | None = None


class Seek(BaseModel):
    """`position` counts the frames of the replay from 0; it is played at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    position: FrameNumber


class StartRecipe(BaseModel):
    """A recipe as a tree, or as the text of its file (TOML or JSON)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: dict[str, Any] | None = None
    text: Annotated[str, Field(max_length=MOST_CHARACTERS)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.recipe is None) == (self.text is None):
            raise ValueError("give either recipe (a tree) or text (of its file)")
        return self

    def parsed(self) -> Recipe:
        """Raises `BadInput` with step, key, value and the way out."""
        return recipe_of(self.recipe) if self.recipe is not None else parse_recipe(self.text or "")


class UseModel(BaseModel):
    """A model set by its name; `eclips models` lists them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(max_length=MAX_NAME_CHARACTERS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class HoldControl(BaseModel):
    """See `acquisition.control_lock`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    session: Annotated[str, Field(min_length=8, max_length=200)]
    name: Annotated[str, Field(min_length=1, max_length=80)]
    place: Place = SERVICE
    take_over: bool = False


class LeaveControl(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    session: Annotated[str, Field(max_length=200)]


class Acknowledge(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    alarm: str


class Nothing(BaseModel):
    """A command without arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Arguments = TypeVar("Arguments", bound=BaseModel)


class Commands:
    """Carries out commands on a node. Every one but `NO_SIGN_OF_LIFE` counts as a sign of life of an operator or a
    controlling program."""

    def __init__(self, node: AcquisitionNode) -> None:
        self._node = node
        self._devices = devices = DeviceCommands(node)
        run_commands = {"start": self._recipe_starts_run, "stop": self._recipe_stops_run}
        self._recipes = RecipeRunner(LabPorts(node, devices, run_commands), node.settings.interlocks)
        node.recipes = self._recipes
        node.device_changes = devices.changes
        node.guard.before_safe_state = self._safe_state_follows
        self._by_name: dict[str, tuple[type[BaseModel], Callable[[Any], Awaitable[Any]]]] = {
            "status": (Nothing, self._status),
            "heartbeat": (Nothing, self._heartbeat),
            "start": (StartRun, self._start),
            "replay": (StartReplay, self._replay),
            "stop": (Nothing, self._stop),
            "abort": (Nothing, self._abort),
            "reset": (Nothing, self._reset),
            "seek": (Seek, self._seek),
            "step": (Nothing, self._step),
            "safe_state": (Nothing, self._safe_state),
            "acknowledge": (Acknowledge, self._acknowledge),
            "control_hold": (HoldControl, self._control_hold),
            "control_leave": (LeaveControl, self._control_leave),
            "use_model": (UseModel, self._use_model),
            "roll_back_model": (Nothing, self._roll_back_model),
            "recipe_start": (StartRecipe, self._recipe_start),
            "recipe_pause": (Nothing, self._recipe_pause),
            "recipe_resume": (Nothing, self._recipe_resume),
            "recipe_abort": (Nothing, self._recipe_abort),
            **devices.by_name,
        }

    async def carry_out(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The value of the command. Raises `RequestRefused` for unknown names and whatever the command raises."""
        if name not in self._by_name:
            raise RequestRefused(f"command {name[:80]!r} is unknown", permitted=tuple(self._by_name))
        model, command = self._by_name[name]
        if name not in NO_SIGN_OF_LIFE:
            self._node.guard.operator_seen()
        checked = _checked(model, arguments)
        device = getattr(checked, "device", "")
        if name in ("set", "arm") and self._recipes.drives(device):
            raise RequestRefused(
                f"{device} is driven by a recipe: abort the recipe first; nothing was sent",
                permitted=(*self._recipes.permitted, "off", "safe_state"),
            )
        value = await command(checked)
        if name in ("off", "stop_device") and self._recipes.drives(device):
            await self._recipes.abort(f"{device} was {'stopped' if name == 'stop_device' else 'switched off'} by hand")
        return value

    async def _status(self, _: Nothing) -> Any:
        return status_tree(self._node)

    async def _heartbeat(self, _: Nothing) -> None:
        return None

    async def _start(self, start: StartRun) -> Any:
        default = self._node.settings.scan
        detector = self._node.lab.detector
        limit = self._node.lab.limits.get(detector.name, {}).get("pixel_size_m")
        if limit is not None and start.pixel_size_m is not None:  # before anything is armed
            limit.check(start.pixel_size_m, f"{detector.name} pixel_size_m")
        plan = RunPlan(
            source=detector,
            source_name=detector.name,
            scan=ScanRequest(
                start.width_px or default.width_px,
                start.height_px or default.height_px,
                start.pixel_size_m or default.pixel_size_m,
                default.dwell_time_s,
            ),
            record=start.record,
            frames=start.frames,
            name=start.name,
            notes=start.notes,
            simulated=self._node.lab.simulated,
            keep_truth=start.keep_truth,
            hold_after=start.hold_after,
            fuse_frames=self._fuse_frames(start.fuse_frames),
        )
        return {"run_id": (await self._node.machine.start(plan)).run_id}

    async def _recipe_start(self, start: StartRecipe) -> Any:
        if self._node.replaying is not None:
            raise RequestRefused("devices are not driven during a replay: stop it first", permitted=("stop",))
        recipe = await asyncio.to_thread(start.parsed)
        if self._node.machine.state != "idle" and any(isinstance(step, Start) for step in recipe.steps):
            raise RequestRefused(
                f"recipe {recipe.name} starts a run, and the present one is {self._node.machine.state}: end that "
                "first, or take the start step out; nothing was sent",
                permitted=self._node.machine.permitted,
            )
        self._recipes.start(recipe)
        return self._recipes.tree()

    async def _recipe_pause(self, _: Nothing) -> Any:
        self._recipes.pause()
        return self._recipes.tree()

    async def _recipe_resume(self, _: Nothing) -> Any:
        self._recipes.resume()
        return self._recipes.tree()

    async def _recipe_abort(self, _: Nothing) -> Any:
        return {"unverified": await self._recipes.abort()}

    async def _recipe_starts_run(self, arguments: Mapping[str, Any]) -> Any:
        return await self._start(_checked(StartRun, arguments))

    async def _recipe_stops_run(self, _: Mapping[str, Any]) -> None:
        """A run that has taken all its frames by then needs no stop."""
        if self._node.machine.state == "acquiring":
            await self._node.machine.stop()

    async def _replay(self, replay: StartReplay) -> Any:
        if self._recipes.active:
            raise RequestRefused("a recipe drives the devices: abort it first", permitted=self._recipes.permitted)
        source = await asyncio.to_thread(
            ReplaySource,
            _run_path(self._node.settings.runs_folder, replay.run),
            self._node.clock,
            speed=replay.speed,
            loop=replay.loop,
            first=replay.first,
            last=replay.last,
            tell=self._node.tell,
        )
        manifest = source.recorded.manifest
        plan = RunPlan(
            source=source,
            source_name=f"replay of {manifest.run_id}",
            scan=source.scan,
            record=replay.record,
            name="replay",
            notes=f"replay of {manifest.run_id}",
            simulated=manifest.simulated,
            keep_truth=True,
            fuse_frames=self._fuse_frames(replay.fuse_frames),
        )
        return {"run_id": (await self._node.machine.start(plan)).run_id}

    def _fuse_frames(self, wanted: int | None) -> int:
        return self._node.settings.fuse_frames if wanted is None else wanted

    async def _stop(self, _: Nothing) -> None:
        await self._node.machine.stop()

    async def _abort(self, _: Nothing) -> None:
        await self._node.machine.abort()

    async def _reset(self, _: Nothing) -> None:
        self._node.machine.reset()

    async def _seek(self, seek: Seek) -> None:
        self._replay_source().seek(seek.position)

    async def _step(self, _: Nothing) -> None:
        self._replay_source().step()

    def _replay_source(self) -> ReplaySource:
        source = self._node.replaying
        if source is None:
            raise RequestRefused("nothing is being replayed", permitted=self._node.machine.permitted)
        return source

    async def _safe_state(self, _: Nothing) -> Any:
        """STOP ALL: the laser first, then gas and scan, then whatever runs is ended in order."""
        self._node.machine.end_soon(f"{CUT_SHORT}: asked for")
        unverified = await self._node.guard.safe_state("asked for")
        await self._node.machine.wait()
        return {"unverified": unverified}

    async def _use_model(self, use: UseModel) -> Any:
        return await self._node.models.use(use.name)

    async def _roll_back_model(self, _: Nothing) -> Any:
        return await self._node.models.roll_back()

    async def _control_hold(self, hold: HoldControl) -> Any:
        self._node.driver.take(hold.session, hold.name, take_over=hold.take_over, place=hold.place)
        return self._node.driver.tree()

    async def _control_leave(self, leave: LeaveControl) -> Any:
        self._node.driver.release(leave.session)
        return self._node.driver.tree()

    def _safe_state_follows(self, reason: str) -> None:
        self._devices.safe_state_follows(reason)
        self._recipes.safe_state_follows(reason)

    async def _acknowledge(self, acknowledge: Acknowledge) -> None:
        self._node.guard.alarms.acknowledge(acknowledge.alarm)


def _run_path(runs_folder: Path, run: str) -> Path:
    """Raises `BadInput` for what the system refuses as a path."""
    try:
        inside = runs_folder / run
        return inside if inside.is_dir() else Path(run)
    except OSError as error:
        raise BadInput(f"there is no recorded run {run[:80]!r}: {error.strerror}") from None


def _checked(model: type[Arguments], arguments: Mapping[str, Any]) -> Arguments:
    try:
        return model.model_validate(dict(arguments))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, problem['loc']))[:80]}: {problem['msg']}" for problem in found[:MAX_PROBLEMS]]
        more = f" and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        raise BadInput(f"{'; '.join(told)}{more}; nothing was done") from None
