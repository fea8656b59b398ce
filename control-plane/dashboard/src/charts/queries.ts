// Telemetry and feedback of a stretch of time that ends now.
import { useQuery } from "@tanstack/react-query";
import { api, take } from "../api/client";
import { lines, type Line, type Range } from "../pure/series";

export type FeedbackKind = "ctr" | "conversion" | "correction" | "dwell";

interface OfFeedback {
  kind: FeedbackKind;
  /** One line for each; an empty text is all versions together. */
  versions: readonly string[];
  range: Range;
}

/** New windows come each minute. */
const REFRESH_MS = 30_000;

/** In windows as the server makes them: a minute, five of conversions, longer ones over a long time. */
export function useFeedback({ kind, versions, range }: OfFeedback) {
  return useQuery({
    queryKey: ["feedback", kind, versions, range.id],
    queryFn: async () => {
      const to = Date.now();
      const from = to - range.ms;
      const answers = await Promise.all(
        versions.map(async (version) => {
          const query = { kind, from, to, ...(version !== "" && { version }) };
          const series = await take(api.GET("/api/v1/feedback/windows", { params: { query } }));
          const name = version === "" ? "all versions" : version;
          return { series, lines: lines(series, name).map((line): Line => ({ ...line, name })) };
        }),
      );
      const first = answers[0]?.series;
      return {
        unit: first?.unit ?? "",
        step_ms: first?.step_ms ?? 0,
        lines: answers.flatMap((answer) => answer.lines),
        from,
        to,
      };
    },
    refetchInterval: REFRESH_MS,
  });
}

/** One line of a chart. */
export interface Asked {
  name: string;
  metric: string;
  aggregation: "avg" | "max" | "sum";
}

interface OfTelemetry {
  lines: readonly Asked[];
  device?: string;
  range: Range;
}

/** Several lines over the same time, in the unit of the first. */
export function useTelemetry({ lines: asked, device, range }: OfTelemetry) {
  return useQuery({
    queryKey: ["telemetry", asked, device, range.id],
    queryFn: async () => {
      const to = Date.now();
      const from = to - range.ms;
      const answers = await Promise.all(
        asked.map(async ({ name, metric, aggregation }) => {
          const query = { metric, aggregation, from, to, step: "auto", ...(device && { device }) };
          const series = await take(api.GET("/api/v1/telemetry/query", { params: { query } }));
          return { unit: series.unit, lines: lines(series, name).map((line): Line => ({ ...line, name })) };
        }),
      );
      return { unit: answers[0]?.unit ?? "", lines: answers.flatMap((answer) => answer.lines), from, to };
    },
    refetchInterval: REFRESH_MS,
  });
}

/** What devices measure. */
export function useMetrics() {
  return useQuery({
    queryKey: ["metrics"],
    queryFn: () => take(api.GET("/api/v1/telemetry/metrics")),
    staleTime: 300_000,
  });
}
