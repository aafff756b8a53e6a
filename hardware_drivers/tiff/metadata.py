"""What a file says of its scan, and the fields it is read from: every refusal names file, key and value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from acquisition.errors import BadInput

LENGTHS_M = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "μm": 1e-6, "um": 1e-6, "nm": 1e-9, "pm": 1e-12, "Å": 1e-10}
VOLTAGES_V = {"V": 1.0, "Volt": 1.0, "kV": 1e3, "kVolt": 1e3}
CURRENTS_A = {"A": 1.0, "mA": 1e-3, "µA": 1e-6, "μA": 1e-6, "uA": 1e-6, "nA": 1e-9, "pA": 1e-12, "fA": 1e-15}
TIMES_S = {"s": 1.0, "Secs": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "ns": 1e-9}

MOST_SHOWN = 40
DATES = ("%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%d", "%d %b %Y")
TIMES = ("%H:%M:%S", "%I:%M:%S %p")
QUANTITY = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s]*)\s*")


@dataclass(frozen=True, slots=True)
class Told:
    """What a file does not tell is None. `taken` is the microscope's own time of day, `rows` how many rows are image
    (a data bar lies below them), `channels` the segments that its pages are of."""

    pixel_size_m: float | None = None
    dwell_time_s: float | None = None
    energy_ev: float | None = None
    working_distance_m: float | None = None
    current_a: float | None = None
    taken: datetime | None = None
    rows: int | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fields:
    """Keys and values of one file as `maker` writes them. A missing or empty value is not told; nor is one of zero or
    below, which makers write for unknown."""

    path: Path
    maker: str
    values: Mapping[str, str]

    def text(self, key: str) -> str:
        return self.values.get(key, "").strip()

    def number(self, key: str, unit: float = 1.0) -> float | None:
        """A bare number in `unit`. Raises `BadInput` where there is text instead."""
        text = self.text(key)
        return self._positive(key, text, unit) if text else None

    def quantity(self, key: str, units: Mapping[str, float], usual: str) -> float | None:
        """A number and its unit, `usual` where none is written. Raises `BadInput` for what is neither."""
        text = self.text(key)
        if not text:
            return None
        match = QUANTITY.fullmatch(text)
        unit = (match[2] or usual) if match else ""
        if match is None or unit not in units:
            raise self.refusal(key, text, f"expected a number and one of {', '.join(units)}")
        return self._positive(key, match[1], units[unit])

    def count(self, key: str) -> int | None:
        """A whole number above 0."""
        text = self.text(key)
        return self.whole(key, text) if text else None

    def whole(self, key: str, text: str) -> int:
        if not re.fullmatch(r"[+]?\d{1,9}", text) or int(text) < 1:
            raise self.refusal(key, text, "expected a whole number above 0")
        return int(text)

    def taken(self, date_key: str, time_key: str) -> datetime | None:
        """None for a form that is not known: the time of day is a courtesy."""
        text = f"{self.text(date_key)} {self.text(time_key)}"
        for date in DATES:
            for time in TIMES:
                try:
                    return datetime.strptime(text, f"{date} {time}")
                except ValueError:
                    continue
        return None

    def refusal(self, key: str, value: str, expected: str) -> BadInput:
        shown = value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}..."
        return BadInput(f"{self.path}: its {self.maker} metadata cannot be read: {key} is {shown!r}, {expected}")

    def _positive(self, key: str, text: str, unit: float) -> float | None:
        try:
            value = float(text) * unit
        except ValueError:
            raise self.refusal(key, text, "expected a number") from None
        if not math.isfinite(value):
            raise self.refusal(key, text, "expected a finite number")
        return value if value > 0 else None


def key_values(lines: str) -> dict[str, str]:
    """`key = value` lines, whatever sections they stand in."""
    pairs = (line.split("=", 1) for line in lines.replace("\x00", "").splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}
