"""Numbers for people: SI values by the unit in their name, with the prefix and the digits that suit them."""

from __future__ import annotations

import math

UNITS = {
    "_mol_per_s": "mol/s",
    "_m_per_s": "m/s",
    "_rad_per_s": "rad/s",
    "_per_s": "1/s",
    "_per_m": "1/m",
    "_counts_per_electron": "counts/electron",
    "_counts": "counts",
    "_m3": "m³",
    "_ev": "eV",
    "_pa": "Pa",
    "_deg": "°",
    "_px": "px",
    "_hz": "Hz",
    "_k": "K",
    "_a": "A",
    "_v": "V",
    "_w": "W",
    "_s": "s",
    "_m": "m",
}
PREFIXED = ("m", "A", "V", "W", "Pa", "s", "eV", "mol/s", "m/s", "Hz")
PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
NONE = "–"


def named(name: str) -> tuple[str, str]:
    """`heater.current_a` as its words and its unit: ("heater current", "A")."""
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            return _words(name.removesuffix(ending)), unit
    return _words(name), ""


def prefixed(largest: float, unit: str) -> tuple[float, str]:
    """The factor to the unit with the prefix that suits numbers up to `largest`."""
    if unit not in PREFIXED or not math.isfinite(largest) or largest == 0.0:
        return 1.0, unit
    # Seconds and kelvins of hours stay what they are: nobody counts in kiloseconds.
    most = 0 if unit == "s" else 9
    power = min(most, max(-12, 3 * math.floor(math.log10(abs(largest)) / 3 + 1e-9)))
    return 10.0**-power, PREFIXES[power] + unit


def digits(value: float, significant: int = 4) -> str:
    """Plain where it is short, else with a power of ten."""
    if not math.isfinite(value):
        return NONE
    if value == 0.0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 6 or size < -4:
        mantissa, _, power = f"{value:.{significant - 1}e}".partition("e")
        return f"{_signed(mantissa)} · 10<sup>{_signed(str(int(power)))}</sup>"
    text = f"{value:.{max(0, significant - 1 - size)}f}"
    return _signed(text.rstrip("0").rstrip(".") if "." in text else text)


def told(value: float | None, unit: str = "", sigma: float | None = None) -> str:
    """Value, uncertainty where it is known, and unit."""
    if value is None or not math.isfinite(value):
        return NONE
    factor, name = prefixed(abs(value), unit)
    after = "" if not name else name if name == "°" else f" {name}"
    if sigma is None or not math.isfinite(sigma) or sigma <= 0.0:
        return digits(factor * value) + after
    decimals = max(0, min(6, 1 - math.floor(math.log10(factor * sigma))))
    return f"{_signed(f'{factor * value:.{decimals}f}')} ± {factor * sigma:.{decimals}f}{after}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as far as they are needed."""
    if seconds < 100.0:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _words(name: str) -> str:
    return name.replace(".", " ").replace("_", " ").strip()
