import { expect, test } from "vitest";
import type { Gate } from "../api/types";
import { errorsOf, limitOf, shareOf, stretch } from "./gates";
import { allows } from "./roles";
import { isEmpty, lines, rangeOf } from "./series";

test("each role may what those below it may", () => {
  expect(allows("admin", "operator")).toBe(true);
  expect(allows("operator", "operator")).toBe(true);
  expect(allows("viewer", "operator")).toBe(false);
});

test("a gate's limit is said in its own direction", () => {
  const gate = (fields: Partial<Gate>): Gate => ({ signal: "ctr", ...fields }) as Gate;
  expect(limitOf(gate({ min: 0.95 }))).toEqual({ at: 0.95, text: "at least 95.0 %" });
  expect(limitOf(gate({ max: 0.01 })).text).toBe("at most 1.0 %");
  expect(limitOf(gate({ worse_by_max: 0.02 })).at).toBeUndefined();
  expect(errorsOf(gate({ false_stop: 0.01, false_open: 0.1 }))).toContain("1.0 %");
  expect(shareOf({ hits: 0, of: 0 })).toBeUndefined();
  expect(shareOf({ hits: 1, of: 4 })).toBe(0.25);
});

test("a meter is stretched where share and limit lie near one end, and holds both", () => {
  expect(stretch(0.5, 0.9)).toEqual({ from: 0, to: 1 });
  expect(stretch(0, undefined)).toEqual({ from: 0, to: 1 });
  for (const [share, limit] of [[0.031, 0.04], [0, 0.01], [0.99, 0.95], [1, 0.98]] as const) {
    const { from, to } = stretch(share, limit);
    expect(to - from).toBeLessThan(0.6);
    expect(Math.min(share, limit)).toBeGreaterThanOrEqual(from);
    expect(Math.max(share, limit)).toBeLessThanOrEqual(to);
  }
});

test("a series keeps its gaps, and nothing but gaps is empty", () => {
  const series = { unit: "us", series: [{ labels: { version: "a@v1.0" }, points: [[1, null]] }] };
  const found = lines(series, "all");
  expect(found).toEqual([{ name: "a@v1.0", points: [[1, null]] }]);
  expect(isEmpty(found)).toBe(true);
  expect(rangeOf("7d").ms).toBe(604_800_000);
  expect(rangeOf("no").id).toBe("1h");
});
