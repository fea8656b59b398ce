import { expect, test } from "vitest";
import { ago, brief, bytes, count, duration, inUnit, metricTitle, micros, onAxis, percent, short, title } from "./format";

test("bytes come in the largest unit that leaves one before the point", () => {
  expect(bytes(0)).toBe("0 B");
  expect(bytes(1023)).toBe("1023 B");
  expect(bytes(1024)).toBe("1.0 KiB");
  expect(bytes(300 * 1024)).toBe("300 KiB");
  expect(bytes(5.5 * 1024 ** 3)).toBe("5.5 GiB");
});

test("counts are grouped, and short where there is little room", () => {
  expect(count(12345)).toBe("12\u202f345");
  expect(short(9500)).toBe("9\u202f500");
  expect(short(12345)).toBe("12.3 k");
  expect(short(4_100_000)).toBe("4.1 M");
  expect(short(0.25)).toBe("0.25");
});

test("times say how long, in both directions", () => {
  expect(duration(119_000)).toBe("119 s");
  expect(duration(180_000)).toBe("3 min");
  expect(duration(-5)).toBe("0 s");
  expect(ago(1000, 61_000)).toBe("60 s ago");
  expect(ago(100_000, 1000)).toBe("in 99 s");
});

test("units of metrics are those that people read", () => {
  expect(micros(950)).toBe("950 µs");
  expect(micros(1500)).toBe("1.50 ms");
  expect(inUnit(2000, "us")).toBe("2.00 ms");
  expect(inUnit(2048, "bytes")).toBe("2.0 KiB");
  expect(inUnit(0.031, "share")).toBe("3.1 %");
  expect(inUnit(12, "requests")).toBe("12 requests");
  expect(percent(1, 0)).toBe("100 %");
  expect(onAxis(1200, "requests")).toBe("1\u202f200");
  expect(onAxis(2000, "us")).toBe("2.00 ms");
  expect(onAxis(0.5, "share")).toBe("50.0 %");
  expect(metricTitle("latency_p99_us")).toBe("Latency p99");
});

test("the wire's words become a line's beginning, digests lose their end", () => {
  expect(title("rolled_back")).toBe("Rolled back");
  expect(brief("sha256:0123456789abcdef")).toBe("0123456789ab");
});
