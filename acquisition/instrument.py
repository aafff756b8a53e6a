"""The instrument file: beam, specimen, scan and detector geometry, as one strict TOML file.

Azimuths are given as people see the image: 0 degrees to the right (+x), 90 degrees to the top (-y).
"""

from __future__ import annotations

import hashlib
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acquisition.errors import BadInput

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

# Guns of scanning electron microscopes end at 30 kV, and the landing energy is what the bias leaves of that.
LOWEST_BIAS_V = -30_000.0


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Beam(_Part):
    """`energy_ev` is the landing energy; `sigma_px` the Gaussian beam width in pixels."""

    energy_ev: Positive = 10_000.0
    current_a: Positive = 1.0e-9
    dwell_time_s: Positive = 1.0e-6
    sigma_px: NonNegative = 0.0
    tail_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tail_sigma_m: NonNegative = 0.2e-6


class Specimen(_Part):
    """Positive `tilt_x_deg` lifts the image's right side, positive `tilt_y_deg` its top.

    `bias_v` is the specimen's potential against the grounded detector. `radius_m` is that of the biased face, centred
    under the beam; None: large against the working distance.
    """

    bias_v: Finite = 0.0
    radius_m: Positive | None = None
    tilt_x_deg: Annotated[float, Field(gt=-80, lt=80)] = 0.0
    tilt_y_deg: Annotated[float, Field(gt=-80, lt=80)] = 0.0
    backscatter_yield: Annotated[float, Field(gt=0, lt=1)] = 0.31

    @model_validator(mode="after")
    def _bias_retards_the_beam(self) -> Self:
        if not LOWEST_BIAS_V <= self.bias_v <= 0:
            raise ValueError(
                f"bias_v {self.bias_v:g} V must lie between {LOWEST_BIAS_V:g} V, which would stop any beam, and 0 V: "
                "give a retarding bias as a negative number"
            )
        return self


class Scan(_Part):
    """Square pixels unless `pixel_size_y_m` says otherwise."""

    pixel_size_m: Positive = 5.0e-9
    pixel_size_y_m: Positive | None = None
    scan_rotation_deg: Finite = 0.0
    mirrored: bool = False


class Segment(_Part):
    """One detector segment in the detector plane. What is None is unknown and must be estimated from frames.

    `modulation` is the relative change of the signal per unit of the normal's component towards the segment; it
    stands in for radii and dark level where those are unknown. `gap_m` is the full width of the dead strip between
    neighbours, of which each edge loses half.
    """

    name: str
    azimuth_from_deg: Finite
    azimuth_to_deg: Finite
    inner_radius_m: NonNegative | None = None
    outer_radius_m: Positive | None = None
    gap_m: NonNegative = 0.0
    gain_counts_per_electron: Positive | None = None
    dark_counts: NonNegative | None = None
    modulation: Positive | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        inner, outer = self.inner_radius_m, self.outer_radius_m
        if (inner is None) != (outer is None):
            raise ValueError(f"segment {self.name} gives one radius only: give both, or neither with a modulation")
        if inner is not None and outer is not None and inner >= outer:
            raise ValueError(f"segment {self.name}: inner radius {inner:g} m must be below outer radius {outer:g} m")
        if outer is None and self.modulation is None:
            raise ValueError(f"segment {self.name} needs inner and outer radius, or a modulation")
        width = self.azimuth_to_deg - self.azimuth_from_deg
        if not 0 < width <= 360:
            raise ValueError(f"segment {self.name} spans {width:g} degrees: azimuth_to must lie 0 to 360 above _from")
        return self

    @property
    def centre_azimuth_deg(self) -> float:
        return 0.5 * (self.azimuth_from_deg + self.azimuth_to_deg)


class Detector(_Part):
    """`rotation_deg` turns the detector against the scan, counter-clockwise as seen in the image.

    `bore_radius_m` is that of the pole piece's bore around the beam; None: no bore, a closed grounded plane.
    """

    working_distance_m: Positive = 8.0e-3
    bore_radius_m: Positive | None = None
    rotation_deg: Finite = 0.0
    offset_x_m: Finite = 0.0
    offset_y_m: Finite = 0.0
    segments: Annotated[tuple[Segment, ...], Field(min_length=3)]

    @model_validator(mode="after")
    def _segments_are_distinct(self) -> Self:
        names = [segment.name for segment in self.segments]
        if len(set(names)) < len(names):
            raise ValueError(f"segment names {names} are not distinct")
        for one, other in combinations(self.segments, 2):
            if _azimuths_overlap(one, other) and _radii_overlap(one, other):
                raise ValueError(f"segments {one.name} and {other.name} overlap")
        return self


class Gas(_Part):
    """A gas between the last aperture and the specimen."""

    formula: Literal["H2", "He", "CH4", "H2O", "N2", "O2", "Ar", "CO2"]
    pressure_pa: NonNegative


class Effects(_Part):
    """What single Lambertian scattering leaves out, all off unless given: rendering has it, the inversion does not.

    Emission: `emission_exponent` e of cos^e around the local normal; `forward_lobe`, the share that leaves about the
    mirrored beam at grazing incidence, less at smaller tilts; `tilt_yield_exponent` x of (2 / (1 + n_z))^x, which is
    9 / sqrt(Z), 1.67 for copper; `second_scattering`, the share of electrons that facing walls emit again;
    `energy_share`, energy of the emitted electrons over the landing energy, which matters with a bias. Beam: `gases`
    along `gas_path_m`. Scan: `line_jitter_px` (standard deviation), `drift_x_px` and `drift_y_px` of the specimen
    during one frame, `lag_s` of the preamplifier, `charging`, the relative change of brightness from first to last
    line. Digitiser: `read_noise_counts`, `glow_counts` of the heater's light on the diode.
    """

    emission_exponent: Annotated[float, Field(ge=0.5, le=4)] = 1.0
    forward_lobe: Annotated[float, Field(ge=0, le=1)] = 0.0
    tilt_yield_exponent: Annotated[float, Field(ge=0, le=4)] = 0.0
    second_scattering: Annotated[float, Field(ge=0, lt=1)] = 0.0
    energy_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    gases: tuple[Gas, ...] = ()
    gas_path_m: NonNegative = 8.0e-3
    gas_temperature_k: Positive = 295.0
    line_jitter_px: NonNegative = 0.0
    drift_x_px: Finite = 0.0
    drift_y_px: Finite = 0.0
    lag_s: NonNegative = 0.0
    charging: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    read_noise_counts: NonNegative = 0.0
    glow_counts: NonNegative = 0.0


class CalibratedNumber(_Part):
    """A number as frames gave it, with its standard error, and what was known of it before. `identifiable` is false
    where the frames added little: then `value` is mostly the prior's."""

    value: Finite
    sigma: NonNegative
    prior: Finite
    prior_sigma: Positive
    identifiable: bool


class CalibrationRecord(_Part):
    """Where the numbers of this file come from. `version` counts the calibrations that led here; `based_on` is the
    calibration hash of the file before; `runs` gives each run's digest by name, `reduced_chi2` how well its frames are
    explained (1: to the noise). `parameters` by name, with `[n]` for the n-th segment; `notes` in words.
    `residual_band`: between which multiples of what noise alone leaves the residuals of its frames lay."""

    version: Annotated[int, Field(ge=1)]
    date: str
    based_on: str
    runs: dict[str, str]
    samples: dict[str, str] = {}
    reduced_chi2: dict[str, NonNegative]
    parameters: dict[str, CalibratedNumber]
    residual_band: tuple[NonNegative, Positive] | None = None
    notes: tuple[str, ...] = ()


class Instrument(_Part):
    """Everything that the optics need to know, used alike by simulation, import, calibration and live inference."""

    beam: Beam = Beam()
    specimen: Specimen = Specimen()
    scan: Scan = Scan()
    detector: Detector
    effects: Effects = Effects()
    calibration: CalibrationRecord | None = None

    @property
    def calibration_hash(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON: changes when any number does.

        A file that no calibration has written hashes as it did before there were any, one without a residual band as it
        did before there were those.
        """
        never: dict[str, Any] = {}
        if self.calibration is None:
            never = {"calibration": True}
        elif self.calibration.residual_band is None:
            never = {"calibration": {"residual_band"}}
        return hashlib.sha256(self.model_dump_json(exclude=never).encode()).hexdigest()[:16]

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(exclude_none=True, mode="json"))

    def with_scan(
        self,
        *,
        pixel_size_m: float | None = None,
        dwell_time_s: float | None = None,
        energy_ev: float | None = None,
        working_distance_m: float | None = None,
        current_a: float | None = None,
    ) -> Instrument:
        """A copy with the given numbers replaced, checked again. Pixels that are not square keep their shape."""
        tree: dict[str, Any] = self.model_dump()
        if pixel_size_m is not None and self.scan.pixel_size_y_m is not None:
            tree["scan"]["pixel_size_y_m"] = self.scan.pixel_size_y_m * (pixel_size_m / self.scan.pixel_size_m)
        for part, key, value in (
            ("scan", "pixel_size_m", pixel_size_m),
            ("beam", "dwell_time_s", dwell_time_s),
            ("beam", "energy_ev", energy_ev),
            ("beam", "current_a", current_a),
            ("detector", "working_distance_m", working_distance_m),
        ):
            if value is not None:
                tree[part][key] = value
        return parse_instrument(tree, "the changed instrument")


def load_instrument(path: Path) -> Instrument:
    """Read an instrument file. Raises `BadInput` with the file, the key and what is wrong with its value."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"instrument file {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"instrument file {path} cannot be read: {error}") from error
    return parse_instrument(tree, f"instrument file {path}")


def parse_instrument(tree: dict[str, Any], origin: str) -> Instrument:
    """Check a tree of numbers; `origin` names it in errors. Raises `BadInput`."""
    try:
        return Instrument.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(key) for key in p['loc'])}: {p['msg']}" for p in error.errors())
        raise BadInput(f"{origin}: {problems}") from None


def four_quadrant() -> Instrument:
    """The default: an annular four-quadrant detector 8 mm above the specimen (`deploy/four-quadrant.toml`)."""
    return Instrument(
        detector=Detector(
            segments=tuple(
                Segment(
                    name=name,
                    inner_radius_m=1.5e-3,
                    outer_radius_m=6.0e-3,
                    azimuth_from_deg=90.0 * quadrant - 45.0,
                    azimuth_to_deg=90.0 * quadrant + 45.0,
                    gap_m=0.2e-3,
                    gain_counts_per_electron=8.0,
                    dark_counts=200.0,
                )
                for quadrant, name in enumerate("ABCD")
            )
        )
    )


def _azimuths_overlap(one: Segment, other: Segment) -> bool:
    start = (other.azimuth_from_deg - one.azimuth_from_deg) % 360.0
    width_one = one.azimuth_to_deg - one.azimuth_from_deg
    width_other = other.azimuth_to_deg - other.azimuth_from_deg
    tolerance = 1e-9
    return start < width_one - tolerance or (start + width_other) > 360.0 + tolerance


def _radii_overlap(one: Segment, other: Segment) -> bool:
    """False where radii are unknown: fitted azimuths of such segments are effective and may overlap."""
    if one.inner_radius_m is None or other.inner_radius_m is None:
        return False
    if one.outer_radius_m is None or other.outer_radius_m is None:
        return False
    return max(one.inner_radius_m, other.inner_radius_m) < min(one.outer_radius_m, other.outer_radius_m)
