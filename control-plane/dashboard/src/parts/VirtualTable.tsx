// A table of any length: only the rows that are seen are there, and it asks for more as its end comes near.
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, type ReactNode } from "react";
import { useNarrow } from "./useNarrow";

export interface Column<T> {
  name: string;
  /** A share of the width; columns without one share what is left. */
  width?: string;
  /** Left out on a phone. */
  wide?: boolean;
  className?: string;
  cell: (row: T) => ReactNode;
}

interface Props<T> {
  label: string;
  columns: ReadonlyArray<Column<T>>;
  rows: readonly T[];
  keyOf: (row: T) => string;
  selected?: string;
  /** Shallow where it stands among other things. */
  shallow?: boolean;
  hasMore?: boolean;
  isLoadingMore?: boolean;
  loadMore?: () => void;
}

const ROW_PX = 45;
const OVERSCAN = 12;

export function VirtualTable<T>(props: Props<T>) {
  const { label, rows, keyOf, selected, shallow, hasMore = false, isLoadingMore = false, loadMore } = props;
  const isNarrow = useNarrow();
  const columns = isNarrow ? props.columns.filter((column) => column.wide !== true) : props.columns;
  const holder = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => holder.current,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN,
  });
  const items = virtual.getVirtualItems();
  const before = items[0]?.start ?? 0;
  const last = items.at(-1);
  const after = last === undefined ? 0 : virtual.getTotalSize() - last.end;
  const isNearEnd = last !== undefined && last.index >= rows.length - OVERSCAN * 2;

  useEffect(() => {
    if (isNearEnd && hasMore && !isLoadingMore) loadMore?.();
  }, [hasMore, isLoadingMore, isNearEnd, loadMore]);

  return (
    <div ref={holder} className={shallow === true ? "virtual shallow" : "virtual"} role="region" aria-label={label} tabIndex={0}>
      <table aria-rowcount={hasMore ? -1 : rows.length + 1}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} scope="col" className={column.className} style={{ width: column.width }}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {before > 0 && (
            <tr className="pad" aria-hidden="true">
              <td colSpan={columns.length} style={{ height: before }} />
            </tr>
          )}
          {items.map((item) => {
            const row = rows[item.index];
            if (row === undefined) return null;
            const key = keyOf(row);
            return (
              <tr key={key} aria-rowindex={item.index + 2} aria-current={key === selected ? "true" : undefined}>
                {columns.map((column) => (
                  <td key={column.name} className={column.className}>
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            );
          })}
          {after > 0 && (
            <tr className="pad" aria-hidden="true">
              <td colSpan={columns.length} style={{ height: after }} />
            </tr>
          )}
          {isLoadingMore && (
            <tr className="foot">
              <td colSpan={columns.length}>Loading more …</td>
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}
