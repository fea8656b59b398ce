import { expect, test } from "vitest";
import type { FrontPoint } from "../api/types";
import { lineOption, palette, paretoOption } from "./options";

const COLOURS = palette("light");

interface Drawn {
  tooltip: { renderMode: string; formatter: (at: unknown) => string };
  series: Array<{ name: string; connectNulls?: boolean; data: unknown[] }>;
}

test("a gap in a line is not bridged, and its tooltip says that nothing is known", () => {
  const lines = [{ name: "p99", points: [[1000, 2000], [2000, null]] as Array<[number, number | null]> }];
  const option = lineOption({ lines, unit: "us", from: 0, to: 3000 }, COLOURS) as unknown as Drawn;
  expect(option.series[0]!.connectNulls).toBe(false);
  const text = option.tooltip.formatter([{ seriesName: "p99", value: [2000, null] }]);
  expect(text).toContain("p99: –");
  expect(option.tooltip.formatter([{ seriesName: "p99", value: [1000, 2000] }])).toContain("2.00 ms");
});

test("tooltips are drawn, as the page's policy refuses styles in HTML", () => {
  const option = lineOption({ lines: [], unit: "", from: 0, to: 1 }, COLOURS) as unknown as Drawn;
  expect(option.tooltip.renderMode).toBe("richText");
});

test("each judged network is in one group: trained, on the front, or beaten", () => {
  const point = (index: number, accuracy: number, latency_us: number, chosen = false): FrontPoint => ({
    index,
    cell: "0->2 sep3 | 1->2 skip",
    channels: 8,
    accuracy,
    weight_bytes: 1000,
    latency_us,
    on_front: false,
    chosen,
  });
  const points = [point(0, 0.9, 100), point(1, 0.8, 200), point(2, 0.95, 300, true)];
  const option = paretoOption(points, COLOURS) as unknown as Drawn;
  const sizes = Object.fromEntries(option.series.map((series) => [series.name, series.data.length]));
  expect(sizes).toEqual({ front: 2, beaten: 1, "on the front": 1, trained: 1 });
});
