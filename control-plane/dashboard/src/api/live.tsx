// What changes on the server reaches the page by server-sent events; without them everything is asked again more often.
import { useQueryClient } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useState, type ReactNode } from "react";

/** The kinds of changes, and the queries (by the first part of their key) that each makes old. */
const TOUCHES: Record<string, string[]> = {
  rollout: ["rollouts", "overview"],
  job: ["jobs", "overview"],
  device: ["device", "overview"],
  incident: ["incidents", "overview"],
  version: ["versions", "overview"],
};

/** A burst of changes is answered by one look. */
const GATHER_MS = 1500;
/** A stream that was refused is tried again after this long. */
const RETRY_MS = 15_000;
const POLL_MS = 5000;
const POLL_WHILE_LIVE_MS = 60_000;

const Live = createContext(false);

/** Is the stream open? */
export function useIsLive(): boolean {
  return useContext(Live);
}

/** How often to ask again for what changes. */
export function usePolling(): number {
  return useIsLive() ? POLL_WHILE_LIVE_MS : POLL_MS;
}

export function LiveProvider({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const [isLive, setLive] = useState(false);

  useEffect(() => {
    let stream: EventSource | undefined;
    let retry: number | undefined;
    let gathering: number | undefined;
    const gathered = new Set<string>();

    const flush = () => {
      gathering = undefined;
      // A look that is under way goes on: else a fleet that changes all the time would never be shown.
      for (const key of gathered) void queries.invalidateQueries({ queryKey: [key] }, { cancelRefetch: false });
      gathered.clear();
    };
    const touch = (keys: string[]) => {
      for (const key of keys) gathered.add(key);
      gathering ??= window.setTimeout(flush, GATHER_MS);
    };
    const open = () => {
      stream = new EventSource(`/api/v1/stream?kinds=${Object.keys(TOUCHES).join(",")}`);
      stream.onopen = () => setLive(true);
      stream.onerror = () => {
        setLive(false);
        if (stream?.readyState === EventSource.CLOSED) retry = window.setTimeout(open, RETRY_MS);
      };
      for (const [kind, keys] of Object.entries(TOUCHES)) stream.addEventListener(kind, () => touch(keys));
      // Some changes were missed.
      stream.addEventListener("reset", () => touch(Object.values(TOUCHES).flat()));
    };
    const close = () => {
      stream?.close();
      window.clearTimeout(retry);
      setLive(false);
    };
    // A page that nobody sees holds no connection: a browser has few of them for one server.
    const turn = () => {
      close();
      if (document.hidden) return;
      open();
      touch(Object.values(TOUCHES).flat());
    };
    if (!document.hidden) open();
    document.addEventListener("visibilitychange", turn);
    return () => {
      document.removeEventListener("visibilitychange", turn);
      close();
      window.clearTimeout(gathering);
    };
  }, [queries]);

  return <Live value={isLive}>{children}</Live>;
}
