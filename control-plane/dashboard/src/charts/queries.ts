// Telemetry and feedback of a stretch of time that ends now.
import { useQuery } from "@tanstack/react-query";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import { lines, type Line, type Range } from "../pure/series";

export type FeedbackKind = "ctr" | "conversion" | "correction" | "dwell";

interface OfFeedback {
  kind: FeedbackKind;
  step: "60s" | "5m" | "auto";
  version?: string;
  device?: string;
  range: Range;
}

/** New windows come each minute. */
const REFRESH_MS = 30_000;

export function useFeedback({ kind, step, version, device, range }: OfFeedback) {
  return useQuery({
    queryKey: ["feedback", kind, step, version, device, range.id],
    queryFn: async () => {
      const to = Date.now();
      const from = to - range.ms;
      const query = { kind, step, from, to, ...(version && { version }), ...(device && { device }) };
      const series = await take(api.GET("/api/v1/feedback/windows", { params: { query } }));
      return { unit: series.unit, lines: lines(series, kind), from, to };
    },
    refetchInterval: REFRESH_MS,
  });
}

interface OfTelemetry {
  metric: string | undefined;
  /** One line for each. */
  aggregations: string[];
  device?: string;
  version?: string;
  range: Range;
}

export function useTelemetry({ metric, aggregations, device, version, range }: OfTelemetry) {
  const polling = usePolling();
  return useQuery({
    queryKey: ["telemetry", metric, aggregations, device, version, range.id],
    enabled: metric !== undefined,
    queryFn: async () => {
      const to = Date.now();
      const from = to - range.ms;
      const ask = async (aggregation: string): Promise<{ unit: string; lines: Line[] }> => {
        const query = {
          metric: metric ?? "",
          aggregation,
          from,
          to,
          step: "auto",
          ...(device && { device }),
          ...(version && { version }),
        };
        const series = await take(api.GET("/api/v1/telemetry/query", { params: { query } }));
        return { unit: series.unit, lines: lines(series, aggregation) };
      };
      const answers = await Promise.all(aggregations.map(ask));
      const named = answers.flatMap((answer, at) =>
        answer.lines.map((line) => ({ ...line, name: aggregations.length > 1 ? (aggregations[at] ?? line.name) : line.name })),
      );
      return { unit: answers[0]?.unit ?? "", lines: named, from, to };
    },
    refetchInterval: Math.min(REFRESH_MS, polling),
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
