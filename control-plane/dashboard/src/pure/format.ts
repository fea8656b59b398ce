// Numbers, times and words for people.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** With thin groups of three: 12 345. */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}

/** A count that fits a small place: 950, 12.3 k, 4.1 M. */
export function short(value: number): string {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]] as const) {
    if (Math.abs(value) >= size) {
      const scale = unit === "k" ? 1e3 : size;
      return `${(value / scale).toFixed(1)} ${unit}`;
    }
  }
  return Number.isInteger(value) ? count(value) : value.toFixed(Math.abs(value) < 10 ? 2 : 1);
}

/** A share from 0 to 1. */
export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`;
}

export function micros(us: number): string {
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms`;
  return `${(us / 1e6).toFixed(2)} s`;
}

export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** How long ago, or in how long where the clocks differ. */
export function ago(at: number, now: number): string {
  return at > now + 1000 ? `in ${duration(at - now)}` : `${duration(now - at)} ago`;
}

/** Date and time of this browser's zone, to the second: 2026-03-01 14:05:09. */
export function dateTime(at: number): string {
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The wire's word with spaces: `rolled_back` is "rolled back". */
export function words(wire: string): string {
  return wire.replaceAll(/[_-]/g, " ");
}

/** The same as the beginning of a line. */
export function title(wire: string): string {
  return sentence(words(wire));
}

/** A text with a capital at its beginning. */
export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A metric's name as a title, without the unit at its end. */
export function metricTitle(name: string): string {
  return title(name.replace(/_(us|ms|bytes|total)$/, ""));
}

/** The first characters of a digest or an id. */
export function brief(id: string): string {
  const bare = id.replace(/^sha256:/, "");
  return bare.length > 12 ? bare.slice(0, 12) : bare;
}

/** A value of a metric in its unit. */
export function inUnit(value: number, unit: string): string {
  switch (unit) {
    case "us":
    case "µs":
    case "microseconds":
      return micros(value);
    case "ms":
    case "milliseconds":
      return micros(value * 1000);
    case "bytes":
      return bytes(value);
    case "share":
    case "ratio":
      return percent(value);
    default:
      return unit === "" || unit === "1" || unit === "count" ? short(value) : `${short(value)} ${unit}`;
  }
}

/** The same where there is little room: units that are words are left to the title. */
export function onAxis(value: number, unit: string): string {
  const isWord = /^[a-z]{5,}$/.test(unit) && !["share", "ratio", "bytes", "microseconds", "milliseconds"].includes(unit);
  return isWord ? short(value) : inUnit(value, unit);
}
