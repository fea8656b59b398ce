// Charts for the views: the engine comes lazily, and the numbers are also there as a table.
import { lazy, Suspense, useCallback } from "react";
import type { FrontPoint } from "../api/types";
import { Answer, Empty } from "../parts/feedback";
import { dateTime, inUnit } from "../pure/format";
import { isEmpty, type Line } from "../pure/series";
import type { PlotProps } from "./Plot";
import { lineOption, paretoOption, type Palette } from "./options";

const LazyPlot = lazy(() => import("./Plot"));

/** Newest rows of the table that stands for a chart. */
const TABLE_ROWS = 60;

function Plot(props: PlotProps) {
  return (
    <Suspense fallback={<div className={`chart ${props.size ?? ""}`} role="status" aria-label="Loading the chart" />}>
      <LazyPlot {...props} />
    </Suspense>
  );
}

interface LineProps {
  label: string;
  lines: Line[];
  unit: string;
  from: number;
  to: number;
  size?: "low" | "tall";
}

function LineChart({ label, lines, unit, from, to, size }: LineProps) {
  const option = useCallback((colours: Palette) => lineOption({ lines, unit, from, to }, colours), [from, lines, to, unit]);
  return (
    <div className="chart-holder">
      <Plot option={option} label={label} size={size} />
      <details>
        <summary>As a table</summary>
        <LineTable label={label} lines={lines} unit={unit} />
      </details>
    </div>
  );
}

function LineTable({ label, lines, unit }: { label: string; lines: Line[]; unit: string }) {
  const times = [...new Set(lines.flatMap((line) => line.points.map(([at]) => at)))].sort((a, b) => b - a);
  const values = lines.map((line) => new Map(line.points));
  return (
    <div className="scroll">
      <table>
        <caption className="hidden-visually">{label}</caption>
        <thead>
          <tr>
            <th scope="col">From</th>
            {lines.map((line) => (
              <th key={line.name} scope="col" className="number">
                {line.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {times.slice(0, TABLE_ROWS).map((at) => (
            <tr key={at}>
              <td className="nowrap">{dateTime(at)}</td>
              {values.map((of, nth) => {
                const value = of.get(at);
                return (
                  <td key={lines[nth]?.name} className="number">
                    {value == null ? "–" : inUnit(value, unit)}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface Asked {
  data: { unit: string; lines: Line[]; from: number; to: number } | undefined;
  error: unknown;
  isPending: boolean;
}

/** The answer of a query as a chart, or what stands for it. */
export function SeriesChart({ of, label, size, empty }: { of: Asked; label: string; size?: "low" | "tall"; empty: string }) {
  return (
    <Answer of={of} lines={6}>
      {({ unit, lines, from, to }) =>
        isEmpty(lines) ? (
          <Empty what="Nothing was measured in this time">{empty}</Empty>
        ) : (
          <LineChart label={label} lines={lines} unit={unit} from={from} to={to} size={size} />
        )
      }
    </Answer>
  );
}

export function ParetoChart({ points, onPick }: { points: FrontPoint[]; onPick: (point: FrontPoint) => void }) {
  const option = useCallback((colours: Palette) => paretoOption(points, colours), [points]);
  const pick = useCallback(
    (data: unknown) => {
      const point = typeof data === "object" && data !== null && "point" in data ? (data.point as FrontPoint) : undefined;
      if (point !== undefined) onPick(point);
    },
    [onPick],
  );
  return <Plot option={option} label="Accuracy, latency and size of the networks that the search judged" size="tall" onPick={pick} />;
}
