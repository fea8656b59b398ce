// Which of the judged networks no other one beats.

export interface Judged {
  accuracy: number;
  latency_us: number;
  weight_bytes: number;
}

/** Is `one` at least as good as `other` in everything, and better in something? */
export function beats(one: Judged, other: Judged): boolean {
  const asGood =
    one.accuracy >= other.accuracy && one.latency_us <= other.latency_us && one.weight_bytes <= other.weight_bytes;
  const better =
    one.accuracy > other.accuracy || one.latency_us < other.latency_us || one.weight_bytes < other.weight_bytes;
  return asGood && better;
}

/** Those that no other one beats, fastest first. */
export function front<T extends Judged>(points: readonly T[]): T[] {
  return points
    .filter((point) => !points.some((other) => beats(other, point)))
    .sort((a, b) => a.latency_us - b.latency_us || a.accuracy - b.accuracy);
}

/** The steps of the best accuracy that is had within a latency, for the line of a plot. */
export function staircase(points: readonly Judged[]): Array<[number, number]> {
  const sorted = [...points].sort((a, b) => a.latency_us - b.latency_us || b.accuracy - a.accuracy);
  const steps: Array<[number, number]> = [];
  let best = Number.NEGATIVE_INFINITY;
  for (const { latency_us, accuracy } of sorted) {
    if (accuracy <= best) continue;
    best = accuracy;
    steps.push([latency_us, accuracy]);
  }
  return steps;
}

/** A radius in pixels whose area grows with the bytes. */
export function radius(bytes: number, largest: number): number {
  const share = largest > 0 ? Math.sqrt(bytes / largest) : 1;
  return 6 + 14 * share;
}
