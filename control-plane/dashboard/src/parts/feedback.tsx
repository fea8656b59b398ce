// What stands where there is nothing yet, something failed, or something is on its way.
import type { ReactNode } from "react";
import { ApiError } from "../api/client";

export function ProblemBox({ error }: { error: unknown }) {
  const head = error instanceof ApiError ? error.title : "This went wrong";
  const detail = error instanceof Error ? error.message : String(error);
  return (
    <div className="problem" role="alert">
      <b>{head}</b>
      <span>{detail}</span>
    </div>
  );
}

/** Says what is not there, and what to do next. */
export function Empty({ what, children }: { what: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <b>{what}</b>
      {children}
    </div>
  );
}

const WIDTHS = ["w1", "w2", "w3"];

export function Skeleton({ lines = 4 }: { lines?: number }) {
  return (
    <div className="skeletons" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, at) => (
        <div key={at} className={`skeleton ${WIDTHS[at % WIDTHS.length]}`} />
      ))}
    </div>
  );
}

interface Asked<T> {
  data: T | undefined;
  error: unknown;
  isPending: boolean;
}

/** The answer of a query, or what stands for it. What was there stays while it is asked again. */
export function Answer<T>({
  of,
  lines,
  children,
}: {
  of: Asked<T>;
  lines?: number;
  children: (data: T) => ReactNode;
}) {
  if (of.data !== undefined) {
    return (
      <>
        {of.error != null && <ProblemBox error={of.error} />}
        {children(of.data)}
      </>
    );
  }
  if (of.error != null) return <ProblemBox error={of.error} />;
  return <Skeleton lines={lines} />;
}

interface Paged {
  hasMore: boolean;
  isLoadingMore: boolean;
  loadMore: () => void;
}

/** Below a list that comes in pages: the next one, while there is one. */
export function More({ of, children = "Show earlier" }: { of: Paged; children?: ReactNode }) {
  if (!of.hasMore) return null;
  return (
    <p>
      <button type="button" disabled={of.isLoadingMore} onClick={of.loadMore}>
        {children}
      </button>
    </p>
  );
}
