import { useEffect, useState } from "react";
import { ago, dateTime } from "../pure/format";

const TICK_MS = 5000;

/** The time, kept fresh. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), TICK_MS);
    return () => window.clearInterval(timer);
  }, []);
  return now;
}

/** How long ago, with the date and time for whoever points at it. */
export function Ago({ at }: { at: number | null | undefined }) {
  const now = useNow();
  if (at == null) return <span className="soft">never</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={dateTime(at)} className="nowrap">
      {ago(at, now)}
    </time>
  );
}

export function At({ at }: { at: number | null | undefined }) {
  if (at == null) return <span className="soft">–</span>;
  return (
    <time dateTime={new Date(at).toISOString()} className="nowrap number">
      {dateTime(at)}
    </time>
  );
}
