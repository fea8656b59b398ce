// What a gate measures, against what it allows.
import type { Gate, Reading } from "../api/types";
import { percent } from "./format";

export interface Limit {
  /** The share at which the gate's verdict turns, where it is a fixed one. */
  at: number | undefined;
  /** For people: "at least 95.0 %". */
  text: string;
}

export function limitOf(gate: Gate | undefined): Limit {
  if (gate === undefined) return { at: undefined, text: "" };
  if (gate.min != null) return { at: gate.min, text: `at least ${percent(gate.min)}` };
  if (gate.max != null) return { at: gate.max, text: `at most ${percent(gate.max)}` };
  if (gate.worse_by_max != null) {
    return { at: undefined, text: `at most ${percent(gate.worse_by_max)} worse than the version before` };
  }
  return { at: undefined, text: "" };
}

export function errorsOf(gate: Gate | undefined): string {
  if (gate === undefined) return "";
  const stop = percent(gate.false_stop ?? 0.05);
  const open = percent(gate.false_open ?? 0.05);
  return `wrongly stops with probability ${stop} at most, wrongly opens with ${open}`;
}

/** The share that was seen; nothing before the first observation. */
export function shareOf(reading: Pick<Reading, "hits" | "of">): number | undefined {
  return reading.of > 0 ? reading.hits / reading.of : undefined;
}

/** The part of 0 to 1 that a meter shows, so that a share and its limit are told apart near either end. */
export function stretch(share: number, limit: number | undefined): { from: number; to: number } {
  const marks = limit === undefined ? [share] : [share, limit];
  const [low, high] = [Math.min(...marks), Math.max(...marks)];
  if (high > 0 && high < 0.3) return { from: 0, to: high * 1.6 };
  if (low < 1 && low > 0.7) return { from: 1 - (1 - low) * 1.6, to: 1 };
  return { from: 0, to: 1 };
}
