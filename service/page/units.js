// Numbers for people. The service speaks SI; here it becomes nm, µm, sccm and °C, with about three digits.

export const MOL_PER_S_PER_SCCM = 7.436e-7;
export const ZERO_CELSIUS_K = 273.15;

export function digits(value, significant = 3) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= 5 || size < -3) return value.toExponential(significant - 1).replace("e+", "e");
  return value.toFixed(Math.max(0, Math.min(significant - 1 - size, 6)));
}

/** A length with the unit that suits it; `like` chooses the unit when several numbers stand together. */
export function lengthUnit(metres) {
  const size = Math.abs(metres);
  if (size >= 1e-3) return { factor: 1e3, name: "mm" };
  if (size >= 1e-6) return { factor: 1e6, name: "µm" };
  return { factor: 1e9, name: "nm" };
}

export function length(metres, significant = 3) {
  if (metres == null || !Number.isFinite(metres)) return "–";
  const unit = lengthUnit(metres);
  return `${digits(metres * unit.factor, significant)} ${unit.name}`;
}

/** `value ± sigma` with the decimals that sigma deserves. */
export function withSigma(value, sigma, unit) {
  if (!Number.isFinite(value)) return "–";
  const space = unit === "°" ? "" : " ";
  if (!Number.isFinite(sigma) || sigma <= 0) return `${digits(value)}${space}${unit}`;
  const decimals = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(sigma))));
  return `${value.toFixed(decimals)} ± ${sigma.toFixed(decimals)}${space}${unit}`;
}

/** 1, 2 or 5 times a power of ten, at most `limit`. */
export function niceBelow(limit) {
  const power = 10 ** Math.floor(Math.log10(limit));
  return [5, 2, 1].find((step) => step * power <= limit) * power;
}

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
}

export function bytes(count) {
  if (count == null) return "–";
  const step = [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, size]) => count >= size);
  return step ? `${digits(count / step[1])} ${step[0]}` : `${count} B`;
}

export function percent(share) {
  if (share == null || !Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

export function clockTime(utcNs) {
  return new Date(utcNs / 1e6).toLocaleTimeString("en-GB");
}

export function celsius(kelvin) {
  return kelvin == null ? null : kelvin - ZERO_CELSIUS_K;
}

const FORMULAS = { hydrogen: "H₂", oxygen: "O₂", argon: "Ar", nitrogen: "N₂", methane: "CH₄" };
export const formula = (gas) => FORMULAS[gas] ?? gas;
