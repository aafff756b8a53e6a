"""Kinetics: any measured series against time, temperature and gas, and the law v = v0 p^n exp(-E / kT) fitted to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.special import stdtrit

from acquisition.errors import BadInput

BOLTZMANN_EV_PER_K = 8.617333262e-5
USUAL_ENERGY_EV, USUAL_ORDER = 1.0, 0.5
LEAST_SPAN_K = 10.0
LEAST_SPAN_OF_LOG_PRESSURE = 0.2
CONFIDENCE = 0.95
TEMPERATURE = "pyrometer.temperature_k"
TOTAL_PRESSURE = "gauge.pressure_pa"
FLOW = ".flow_mol_per_s"

Floats = NDArray[np.float64]


def log_rate(temperature_k: Floats | float, energy_ev: float, usual_k: float) -> Floats:
    """Logarithm of the rate over that at `usual_k`, by Arrhenius."""
    return np.asarray(-energy_ev / BOLTZMANN_EV_PER_K * (1.0 / np.asarray(temperature_k) - 1.0 / usual_k))


def log_supply(pressure_pa: Floats | float, order: float, usual_pa: float) -> Floats:
    """Logarithm of the rate over that at `usual_pa`, by the order in the gas."""
    return np.asarray(order * np.log(np.maximum(pressure_pa, 1e-6) / usual_pa))


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity through a run: `values` (n,) in `unit`, NaN where it was not found, `errors` (n,) standard errors,
    and the readings joined to each frame by name. `time_s` (n,): middles of the frames it was measured on."""

    name: str
    unit: str
    time_s: Floats
    values: Floats
    errors: Floats
    state: tuple[Mapping[str, float], ...]

    def against(self, channel: str) -> Floats:
        """(n,) readings of a channel, NaN where there were none."""
        return np.array([readings.get(channel, math.nan) for readings in self.state])

    def gases(self) -> list[str]:
        """Those whose flow was read in every frame."""
        names = set.intersection(*(set(readings) for readings in self.state)) if self.state else set()
        return sorted(name.removesuffix(FLOW) for name in names if name.endswith(FLOW))

    def partial_pressure_pa(self, gas: str) -> Floats:
        """(n,) of one gas: the gauge's total times its share of the flows, which holds where the pump takes all gases
        alike and the chamber has had the time to follow; NaN where gauge or flows are unknown."""
        flows = {name: self.against(name + FLOW) for name in self.gases()}
        if gas not in flows:
            return np.full(len(self.values), math.nan)
        total = np.sum(list(flows.values()), axis=0)
        share = np.divide(flows[gas], total, out=np.full(len(total), math.nan), where=total > 0)
        return np.asarray(share * self.against(TOTAL_PRESSURE))


@dataclass(frozen=True, slots=True)
class RateLaw:
    """`rate (p / usual_pa)^order exp(-energy / k (1 / T - 1 / usual_k))` with standard errors; `order` is 0 and
    `usual_pa` NaN where the pressure did not vary and was not fitted."""

    rate: float
    energy_ev: float
    energy_error_ev: float
    order: float
    order_error: float
    usual_k: float
    usual_pa: float
    covariance: Floats
    freedom: int

    def at(self, temperature_k: Floats, pressure_pa: Floats | float = math.nan) -> Floats:
        return self.rate * np.exp(self._terms(temperature_k, pressure_pa)[0])

    def band(self, temperature_k: Floats, pressure_pa: Floats | float = math.nan) -> tuple[Floats, Floats]:
        """Between what rates the law itself lies with `CONFIDENCE` (not single measurements)."""
        logarithm, slopes = self._terms(temperature_k, pressure_pa)
        spread = np.sqrt(np.einsum("in,ij,jn->n", slopes, self.covariance, slopes))
        spread *= stdtrit(max(self.freedom, 1), 0.5 + 0.5 * CONFIDENCE)
        return self.rate * np.exp(logarithm - spread), self.rate * np.exp(logarithm + spread)

    def _terms(self, temperature_k: Floats, pressure_pa: Floats | float) -> tuple[Floats, Floats]:
        """The logarithm over that of `rate`, and its derivatives by logarithm of the rate, energy and order."""
        per_ev = log_rate(temperature_k, 1.0, self.usual_k)
        slopes = [np.ones_like(per_ev), per_ev]
        logarithm = self.energy_ev * per_ev
        if len(self.covariance) == 3:
            slopes.append(np.broadcast_to(log_supply(pressure_pa, 1.0, self.usual_pa), per_ev.shape))
            logarithm = logarithm + self.order * slopes[2]
        return logarithm, np.array(slopes)


def fit_rate_law(
    temperature_k: Floats | Sequence[float],
    rates: Floats | Sequence[float],
    errors: Floats | Sequence[float] | None = None,
    pressure_pa: Floats | Sequence[float] | None = None,
) -> RateLaw:
    """The law through rates (n,) of any unit, by least squares in the rate itself, weighted by `errors`; its own by the
    scatter. With `pressure_pa` (n,) that varies, the order in that gas too. Places that are not finite are left out.

    Raises `BadInput` for fewer values than unknowns and one more, for temperatures within 10 K of each other, for rates
    that are not positive on the whole, and for those that follow no such law (metrology.md, 5).
    """
    kelvin, found = np.asarray(temperature_k, np.float64), np.asarray(rates, np.float64)
    sigma = np.ones_like(found) if errors is None else np.asarray(errors, np.float64)
    pascal = np.full_like(found, math.nan) if pressure_pa is None else np.asarray(pressure_pa, np.float64)
    known = np.isfinite(kelvin) & np.isfinite(found) & np.isfinite(sigma) & (sigma > 0) & (kelvin > 0)
    with_gas = bool(
        known.any() and (pascal[known] > 0).all() and np.ptp(np.log(pascal[known])) > LEAST_SPAN_OF_LOG_PRESSURE
    )
    kelvin, found, sigma, pascal = kelvin[known], found[known], sigma[known], pascal[known]
    unknowns = 3 if with_gas else 2
    if len(found) <= unknowns:
        raise BadInput(f"{len(found)} rates are too few for {unknowns} unknowns: measure {unknowns + 1} or more")
    if np.ptp(kelvin) < LEAST_SPAN_K:
        raise BadInput(
            f"temperatures from {kelvin.min():.1f} to {kelvin.max():.1f} K: an activation energy needs "
            f"{LEAST_SPAN_K:g} K or more, so vary the temperature"
        )
    typical = float(np.median(found))
    if typical <= 0.0:
        raise BadInput(f"the median rate is {typical:.3g}: a law of growth needs rates above 0")
    usual_k = float(1.0 / np.mean(1.0 / kelvin))
    usual_pa = float(np.exp(np.mean(np.log(pascal)))) if with_gas else math.nan

    def law(_: Floats, *unknown: float) -> Floats:
        logarithm = unknown[0] + log_rate(kelvin, unknown[1], usual_k)
        if with_gas:
            logarithm = logarithm + log_supply(pascal, unknown[2], usual_pa)
        return np.asarray(np.exp(np.clip(logarithm, -60.0, 60.0)))

    start = (0.0, USUAL_ENERGY_EV, USUAL_ORDER)[:unknowns]
    try:
        best, covariance = curve_fit(law, kelvin, found / typical, start, sigma / typical, maxfev=4000)
    except RuntimeError as error:
        raise BadInput(f"{len(found)} rates follow no Arrhenius law: {error}") from None
    if not np.isfinite(covariance).all():
        raise BadInput(f"{len(found)} rates do not tell the law's unknowns apart: vary temperature and gas separately")
    error_of = np.sqrt(np.diag(covariance))
    return RateLaw(
        rate=typical * math.exp(best[0]),
        energy_ev=float(best[1]),
        energy_error_ev=float(error_of[1]),
        order=float(best[2]) if with_gas else 0.0,
        order_error=float(error_of[2]) if with_gas else 0.0,
        usual_k=usual_k,
        usual_pa=usual_pa,
        covariance=np.asarray(covariance, np.float64),
        freedom=len(found) - unknowns,
    )
