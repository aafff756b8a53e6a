"""A PI motion controller that speaks GCS 2.0 and carries the simulated specimen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from acquisition.clock import Instant
from hardware_drivers.emulators.line import Fault
from hardware_drivers.simulated.world import World

MM_PER_M = 1e3
SPEED_M_PER_S = 50e-6
MOTION_STATUS, STOP_ALL = 0x05, 0x18
NO_ERROR, SYNTAX, UNKNOWN_COMMAND, NOT_REFERENCED, OUT_OF_LIMITS, STOPPED, NO_SUCH_AXIS = 0, 1, 2, 5, 7, 10, 15
JOYSTICK = 83


@dataclass(slots=True)
class EmulatedAxis:
    """`quantity` is the coordinate of the world's stage that it drives; `travel_mm` its soft limit on either side."""

    quantity: str
    referenced: bool = True
    servo: bool = True
    travel_mm: float = 12.5
    start_m: float = 0.0
    target_m: float = 0.0


class EmulatedGcs2:
    """`axes` by PI's axis names. `ignores_moves` accepts a move and stays where it is, without an error.

    `error` is what `ERR?` tells next; `stalls` stops every axis half way, off its target and without an error. All may
    be set at any time. `Fault.OVER_RANGE` tells positions that no stage has, `NOT_READY` has lost the references, and
    `REFUSING` refuses moves, as with an active joystick.
    """

    def __init__(self, world: World, axes: dict[str, EmulatedAxis] | None = None) -> None:
        self._world = world
        self.axes = axes or {"1": EmulatedAxis("x_m"), "2": EmulatedAxis("y_m"), "3": EmulatedAxis("z_m")}
        self.error = NO_ERROR
        self.ignores_moves = False
        self.stalls = False
        self.fault = Fault.NONE
        self._began: Instant | None = None
        self._typed = b""
        for axis in self.axes.values():
            axis.start_m = axis.target_m = getattr(world.stage, axis.quantity)

    def restart(self) -> None:
        self._typed = b""

    def receive(self, data: bytes) -> bytes:
        """Lines end by LF. Single characters (#5, #24) act at once, even inside a line."""
        self._travel()
        answers = b""
        for byte in data:
            if byte == MOTION_STATUS:
                moving = sum(1 << at for at, axis in enumerate(self.axes.values()) if self._moves(axis))
                answers += f"{moving:X}\n".encode()
            elif byte == STOP_ALL:
                self._stop([])
            elif byte == ord("\n"):
                answers += self._obey(self._typed.decode("ascii", "replace").split())
                self._typed = b""
            else:
                self._typed += bytes([byte])
        return answers

    def _obey(self, words: list[str]) -> bytes:
        if not words:
            return b""
        command, *arguments = words
        questions: dict[str, Callable[[EmulatedAxis], str]] = {
            "POS?": self._position,
            "ONT?": lambda axis: str(int(axis.servo and not self._moves(axis))),
            "FRF?": lambda axis: str(int(self._is_referenced(axis))),
            "SVO?": lambda axis: str(int(axis.servo)),
        }
        orders: dict[str, Callable[[list[str]], None]] = {
            "MOV": self._move,
            "SVO": self._switch_servo,
            "STP": self._stop,
            "HLT": self._stop,
        }
        if command in questions:
            return self._tell(questions[command], arguments or list(self.axes))
        if command in orders:
            orders[command](arguments)
            return b""
        if command == "*IDN?":
            return b"(c)2015 Physik Instrumente (PI) GmbH & Co. KG, C-884.4DC, 0115550000, 1.2.0.0\n"
        if command == "ERR?":
            error, self.error = self.error, NO_ERROR
            return f"{error}\n".encode()
        self.error = UNKNOWN_COMMAND
        return b""

    def _tell(self, question: Callable[[EmulatedAxis], str], names: list[str]) -> bytes:
        if not set(names) <= set(self.axes):
            self.error = NO_SUCH_AXIS
            return b""
        # A space before the line feed says that another line follows.
        return " \n".join(f"{name}={question(self.axes[name])}" for name in names).encode() + b"\n"

    def _move(self, arguments: list[str]) -> None:
        try:
            targets_mm = {name: float(value) for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
        except ValueError:
            self.error = SYNTAX
            return
        if not set(targets_mm) <= set(self.axes):
            self.error = NO_SUCH_AXIS
        elif self.fault is Fault.REFUSING:
            self.error = JOYSTICK
        elif not all(self._is_referenced(self.axes[name]) and self.axes[name].servo for name in targets_mm):
            self.error = NOT_REFERENCED
        elif any(abs(target) > self.axes[name].travel_mm for name, target in targets_mm.items()):
            self.error = OUT_OF_LIMITS
        elif not self.ignores_moves:
            for axis in self.axes.values():
                axis.start_m = axis.target_m = self._stands_m(axis)
            for name, target_mm in targets_mm.items():
                axis = self.axes[name]
                share = 0.5 if self.stalls else 1.0
                axis.target_m += share * (target_mm / MM_PER_M - axis.start_m)
            self._began = self._world.clock.now()

    def _switch_servo(self, arguments: list[str]) -> None:
        for name, value in zip(arguments[::2], arguments[1::2], strict=False):
            self.axes[name].servo = value == "1"

    def _stop(self, names: list[str]) -> None:
        for axis in [self.axes[name] for name in names if name in self.axes] or self.axes.values():
            axis.start_m = axis.target_m = self._stands_m(axis)
        self.error = STOPPED

    def _position(self, axis: EmulatedAxis) -> str:
        if self.fault is Fault.OVER_RANGE:
            return "99999999"
        return f"{self._stands_m(axis) * MM_PER_M:.6f}"

    def _is_referenced(self, axis: EmulatedAxis) -> bool:
        return axis.referenced and self.fault is not Fault.NOT_READY

    def _moves(self, axis: EmulatedAxis) -> bool:
        return self._stands_m(axis) != axis.target_m

    def _stands_m(self, axis: EmulatedAxis) -> float:
        return float(getattr(self._world.stage, axis.quantity))

    def _travel(self) -> None:
        """Bring the world's stage to where the axes are by now."""
        if self._began is None:
            return
        gone_m = SPEED_M_PER_S * self._world.clock.now().seconds_since(self._began)
        for axis in self.axes.values():
            way_m = axis.target_m - axis.start_m
            stands_m = axis.target_m if gone_m >= abs(way_m) else axis.start_m + (gone_m if way_m > 0 else -gone_m)
            self._world.stage = replace(self._world.stage, **{axis.quantity: stands_m})
