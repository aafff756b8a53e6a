"""Where the primaries of one pixel really go: beam core, interaction volume, and the skirt that a gas scatters."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acquisition.instrument import Effects, Instrument

BOLTZMANN_J_PER_K = 1.380649e-23
ELECTRON_REST_EV = 510_998.95
# Atomic numbers of the atoms in a molecule.
ATOMS = {
    "H2": (1, 1),
    "He": (2,),
    "CH4": (6, 1, 1, 1, 1),
    "H2O": (8, 1, 1),
    "N2": (7, 7),
    "O2": (8, 8),
    "Ar": (18,),
    "CO2": (6, 8, 8),
}
# The radius of Danilatos's formula holds nine tenths of the scattered electrons; of a Gaussian it is this many sigma.
SIGMAS_OF_SKIRT_RADIUS = math.sqrt(2.0 * math.log(10.0))

Floats = NDArray[np.float32]


class Skirt(NamedTuple):
    """`share` of the primaries scattered out of the probe, into a Gaussian of `sigma_m`. Both are estimates."""

    share: float
    sigma_m: float


def gas_skirt(effects: Effects, energy_ev: float) -> Skirt:
    """How much of the beam the gas takes away and how far.

    Share `1 - exp(-sum of n sigma L)`, with per atom elastic cross sections
    `1.4e-6 nm² Z^1.5 / beta² (1 - 0.26 Z / (137 beta))` (J. P. Langmore and M. F. Smith, Ultramicroscopy 46 (1992) 349)
    and inelastic ones 20/Z times those (L. Reimer, Transmission Electron Microscopy, ch. 5): even inelastic angles of
    half a milliradian lead micrometres away over millimetres of path. Radius `364 (Z / E) sqrt(p / T) L^1.5` in SI and
    eV (G. D. Danilatos, Adv. Electron. Electron Phys. 71 (1988) 109), averaged over the gases by what each scatters.
    Good to some tens of per cent.
    """
    speed = math.sqrt(1.0 - 1.0 / (1.0 + energy_ev / ELECTRON_REST_EV) ** 2)
    collisions, radius2 = 0.0, 0.0
    for gas in effects.gases:
        atoms = ATOMS[gas.formula]
        density = gas.pressure_pa / (BOLTZMANN_J_PER_K * effects.gas_temperature_k)
        elastic = [1.4e-24 * z**1.5 / speed**2 * (1.0 - 0.26 * z / (137.0 * speed)) for z in atoms]
        section_m2 = sum(part * (1.0 + 20.0 / z) for part, z in zip(elastic, atoms, strict=True))
        mean_z = sum(atoms) / len(atoms)
        radius_m = 364.0 * mean_z / energy_ev * math.sqrt(gas.pressure_pa / effects.gas_temperature_k)
        radius_m *= effects.gas_path_m**1.5
        collisions += density * section_m2 * effects.gas_path_m
        radius2 += density * section_m2 * effects.gas_path_m * radius_m**2
    if collisions == 0.0:
        return Skirt(0.0, 0.0)
    return Skirt(1.0 - math.exp(-collisions), math.sqrt(radius2 / collisions) / SIGMAS_OF_SKIRT_RADIUS)


def kanaya_okayama_range_m(energy_ev: float, atomic_weight: float, atomic_number: float, density_kg_m3: float) -> float:
    """Range of electrons in a solid, `27.6 nm A E^1.67 / (Z^0.889 rho)` with E in keV and rho in g/cm³.

    K. Kanaya and S. Okayama, J. Phys. D 5 (1972) 43: 0.46 um for copper at 10 keV. Backscattered electrons leave within
    about a third of it around the beam; `beam.tail_sigma_m` is to be given accordingly.
    """
    stopping: float = atomic_number**0.889 * density_kg_m3 / 1e3
    return 27.6e-9 * atomic_weight * float((energy_ev / 1e3) ** 1.67) / stopping


def blurred(electrons: Floats, instrument: Instrument) -> Floats:
    """(S, H, W) convolved with the probe: Gaussian core of `sigma_px`, Gaussian tail of `tail_sigma_m`, gas skirt.

    The frame is continued by mirroring. A skirt wider than the frame is the frame's mean, as of a specimen that goes on
    alike.
    """
    beam, scan = instrument.beam, instrument.scan
    skirt = gas_skirt(instrument.effects, beam.energy_ev)
    skirt_px, frame_px = skirt.sigma_m / scan.pixel_size_m, max(electrons.shape[1:])
    far_share = skirt.share if skirt_px > 0.25 * frame_px else 0.0
    near_share = skirt.share - far_share
    parts = [((1.0 - skirt.share) * (1.0 - beam.tail_fraction), beam.sigma_px)]
    if beam.tail_fraction > 0:
        parts.append(((1.0 - skirt.share) * beam.tail_fraction, beam.tail_sigma_m / scan.pixel_size_m))
    if near_share > 0:
        parts.append((near_share, skirt_px))
    if max(sigma_px for _, sigma_px in parts) > 0:
        electrons = _convolved(electrons, parts, scan.pixel_size_m / (scan.pixel_size_y_m or scan.pixel_size_m))
    elif skirt.share > 0:
        electrons = electrons * np.float32(1.0 - far_share)
    else:
        return electrons
    mean = electrons.mean(axis=(1, 2), keepdims=True, dtype=np.float64) / (1.0 - far_share)
    return np.asarray(electrons + far_share * mean, np.float32)


def _convolved(electrons: Floats, parts: list[tuple[float, float]], aspect: float) -> Floats:
    """`parts`: weight and sigma in columns of each Gaussian; `aspect`: columns to rows of one length."""
    rows, columns = electrons.shape[1:]
    margin = math.ceil(4 * max(sigma_px for _, sigma_px in parts) * max(aspect, 1.0))
    padded = np.pad(electrons, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    along_y = np.fft.fftfreq(padded.shape[1])[:, None] * aspect
    along_x = np.fft.rfftfreq(padded.shape[2])
    spread = -2.0 * math.pi**2 * (along_x**2 + along_y**2)
    transfer = sum(weight * np.exp(spread * sigma_px**2) for weight, sigma_px in parts)
    convolved = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape[1:])
    inside = convolved[:, margin : margin + rows, margin : margin + columns]
    return np.maximum(inside, 0.0).astype(np.float32)
