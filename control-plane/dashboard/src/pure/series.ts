// Answers of telemetry queries, as charts take them.

/** A `Series` of the API, as much of it as is drawn. */
export interface Measured {
  unit: string;
  /** Points are pairs of a time and a value, which is nothing where nothing was measured. */
  series: ReadonlyArray<{ labels: Record<string, string>; points: ReadonlyArray<readonly unknown[]> }>;
}

export interface Line {
  name: string;
  points: Array<[number, number | null]>;
}

/** One line for each set of labels; a gap stays a gap. */
export function lines(series: Measured, fallback: string): Line[] {
  return series.series.map(({ labels, points }) => ({
    name: Object.values(labels).join(", ") || fallback,
    points: points.map(([at, value]) => [Number(at), value === null || value === undefined ? null : Number(value)]),
  }));
}

export function isEmpty(all: readonly Line[]): boolean {
  return all.every((line) => line.points.every(([, value]) => value === null));
}

export interface Range {
  id: string;
  label: string;
  ms: number;
}

export const RANGES: readonly Range[] = [
  { id: "1h", label: "1 hour", ms: 3_600_000 },
  { id: "6h", label: "6 hours", ms: 21_600_000 },
  { id: "1d", label: "1 day", ms: 86_400_000 },
  { id: "7d", label: "7 days", ms: 604_800_000 },
  { id: "30d", label: "30 days", ms: 2_592_000_000 },
];

export function rangeOf(id: string | null): Range {
  return RANGES.find((range) => range.id === id) ?? (RANGES[0] as Range);
}
