// What charts show, as ECharts wants it said. Functions of their input; nothing here draws.
import type { FrontPoint } from "../api/types";
import { bytes, dateTime, inUnit, micros, onAxis, percent } from "../pure/format";
import { front, radius, staircase } from "../pure/pareto";
import type { Line } from "../pure/series";
import type { Option } from "./engine";

export interface Palette {
  ink: string;
  soft: string;
  line: string;
  card: string;
  /** For lines, in order. */
  colours: string[];
}

const LIGHT: Palette = {
  ink: "#1b2430",
  soft: "#5b667a",
  line: "#dfe4ec",
  card: "#ffffff",
  colours: ["#2563c9", "#c2571a", "#12875a", "#a63a8f", "#7a6a00", "#3f8fa8", "#8a4fd0", "#b3373f"],
};
const DARK: Palette = {
  ink: "#e6eaf0",
  soft: "#9aa7ba",
  line: "#283345",
  card: "#1c2531",
  colours: ["#6ea8fe", "#f0995b", "#4cc38a", "#e07fc8", "#d8c24a", "#6fc3dd", "#b891f0", "#f2736a"],
};

export function palette(theme: "light" | "dark"): Palette {
  return theme === "dark" ? DARK : LIGHT;
}

/** Tooltips are drawn on the canvas: as HTML they would carry styles that the page's policy refuses. */
function tooltip(colours: Palette) {
  return {
    renderMode: "richText",
    backgroundColor: colours.card,
    borderColor: colours.line,
    textStyle: { color: colours.ink, fontSize: 12 },
    confine: true,
  };
}

const FONT = "system-ui, 'DejaVu Sans', sans-serif";

function axis(colours: Palette) {
  return {
    axisLine: { lineStyle: { color: colours.line } },
    axisTick: { show: false },
    axisLabel: { color: colours.soft, hideOverlap: true },
    splitLine: { lineStyle: { color: colours.line, opacity: 0.7 } },
    nameTextStyle: { color: colours.soft },
  };
}

interface LineInput {
  lines: readonly Line[];
  unit: string;
  from: number;
  to: number;
}

/** Lines over time; what was not measured is a gap. */
export function lineOption({ lines, unit, from, to }: LineInput, colours: Palette): Option {
  const isMany = lines.length > 1;
  const isSparse = (line: Line) => line.points.filter(([, value]) => value !== null).length < 30;
  return {
    animation: false,
    color: colours.colours,
    textStyle: { fontFamily: FONT },
    aria: { enabled: true },
    grid: { left: 8, right: 16, top: isMany ? 34 : 14, bottom: 6, containLabel: true },
    legend: isMany
      ? { type: "plain", top: 0, left: 0, textStyle: { color: colours.soft }, itemHeight: 8, itemWidth: 16 }
      : undefined,
    tooltip: {
      ...tooltip(colours),
      trigger: "axis",
      axisPointer: { lineStyle: { color: colours.soft } },
      formatter: (at: Array<{ seriesName: string; value: [number, number | null] }>) =>
        [
          dateTime(at[0]?.value[0] ?? 0),
          ...at.map(({ seriesName, value }) => {
            const [, seen] = value;
            return `${seriesName}: ${seen === null ? "–" : inUnit(seen, unit)}`;
          }),
        ].join("\n"),
    },
    xAxis: { type: "time", min: from, max: to, ...axis(colours), splitLine: { show: false } },
    yAxis: {
      type: "value",
      ...axis(colours),
      axisLabel: { color: colours.soft, formatter: (value: number) => onAxis(value, unit) },
    },
    series: lines.map((line) => ({
      name: line.name,
      type: "line",
      data: line.points,
      connectNulls: false,
      showSymbol: isSparse(line),
      symbolSize: 5,
      lineStyle: { width: 2 },
      emphasis: { disabled: true },
    })),
  };
}

/** Accuracy over latency, the circle's area by bytes: the networks that a search judged. */
export function paretoOption(points: readonly FrontPoint[], colours: Palette): Option {
  const largest = Math.max(...points.map((point) => point.weight_bytes), 1);
  const [blue, orange] = [colours.colours[0], colours.colours[1]];
  const best = front(points);
  const entry = (point: FrontPoint) => ({
    value: [point.latency_us, point.accuracy],
    symbolSize: radius(point.weight_bytes, largest) * 2,
    point,
  });
  const scatter = (name: string, chosen: FrontPoint[], color: string | undefined, opacity: number) => ({
    name,
    type: "scatter",
    data: chosen.map(entry),
    itemStyle: { color, opacity, borderColor: colours.card, borderWidth: 1 },
  });
  const others = points.filter((point) => !point.chosen && !best.includes(point));
  const onFront = points.filter((point) => !point.chosen && best.includes(point));
  const trained = points.filter((point) => point.chosen);
  return {
    animation: false,
    textStyle: { fontFamily: FONT },
    aria: { enabled: true },
    grid: { left: 8, right: 24, top: 40, bottom: 26, containLabel: true },
    legend: { top: 0, left: 0, textStyle: { color: colours.soft }, data: ["on the front", "beaten", "trained"] },
    tooltip: {
      ...tooltip(colours),
      trigger: "item",
      formatter: (at: { data?: { point?: FrontPoint } }) => {
        const point = at.data?.point;
        if (point === undefined) return "";
        const said = [percent(point.accuracy, 2), micros(point.latency_us), bytes(point.weight_bytes)];
        return `#${point.index}  ${said.join("  ·  ")}\n${point.cell.replaceAll(" | ", "\n")}`;
      },
    },
    xAxis: {
      type: "value",
      scale: true,
      name: "latency on the board, estimated",
      nameLocation: "middle",
      nameGap: 28,
      ...axis(colours),
      axisLabel: { color: colours.soft, formatter: (value: number) => micros(value), hideOverlap: true },
    },
    yAxis: {
      type: "value",
      // A share: the axis does not go beyond all or under nothing.
      min: (of: Extent) => Math.max(0, of.min - margin(of)),
      max: (of: Extent) => Math.min(1, of.max + margin(of)),
      ...axis(colours),
      axisLabel: { color: colours.soft, formatter: (value: number) => percent(value) },
    },
    series: [
      {
        name: "front",
        type: "line",
        step: "end",
        data: staircase(points),
        showSymbol: false,
        silent: true,
        lineStyle: { color: blue, width: 1.5, type: "dashed", opacity: 0.8 },
      },
      scatter("beaten", others, colours.soft, 0.45),
      scatter("on the front", onFront, blue, 0.85),
      scatter("trained", trained, orange, 0.95),
    ],
  };
}

interface Extent {
  min: number;
  max: number;
}

/** Room around the points, as a share. */
function margin({ min, max }: Extent): number {
  return Math.max(0.01, (max - min) / 10);
}
