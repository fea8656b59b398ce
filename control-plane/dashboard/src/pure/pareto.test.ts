import { expect, test } from "vitest";
import { beats, front, radius, staircase } from "./pareto";

const point = (accuracy: number, latency_us: number, weight_bytes: number) => ({ accuracy, latency_us, weight_bytes });

test("the front holds what nothing beats, fastest first", () => {
  const good = point(0.9, 200, 5000);
  const small = point(0.8, 100, 1000);
  const beaten = point(0.79, 150, 1000);
  expect(front([good, small, beaten])).toEqual([small, good]);
});

test("equals do not beat each other", () => {
  const one = point(0.9, 100, 1000);
  expect(beats(one, { ...one })).toBe(false);
  expect(front([one, { ...one }])).toHaveLength(2);
});

test("no point of a front is beaten, and whoever is left out is", () => {
  let seed = 7;
  const next = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
  for (let round = 0; round < 50; round += 1) {
    const points = Array.from({ length: 30 }, () =>
      point(Math.round(next() * 10) / 10, Math.ceil(next() * 10), Math.ceil(next() * 10)),
    );
    const kept = front(points);
    expect(kept.length).toBeGreaterThan(0);
    for (const out of points.filter((candidate) => !kept.includes(candidate))) {
      expect(kept.some((best) => beats(best, out))).toBe(true);
    }
  }
});

test("a staircase only goes up", () => {
  const steps = staircase([point(0.9, 200, 1), point(0.8, 100, 1), point(0.7, 150, 1), point(0.95, 300, 1)]);
  expect(steps).toEqual([
    [100, 0.8],
    [200, 0.9],
    [300, 0.95],
  ]);
});

test("the largest network has the largest circle", () => {
  expect(radius(100, 100)).toBe(20);
  expect(radius(25, 100)).toBe(13);
  expect(radius(0, 0)).toBe(20);
});
