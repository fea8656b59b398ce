// A list that comes in pages, as one list.
import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Page } from "../api/types";

interface Options<T> {
  queryKey: unknown[];
  ask: (cursor: string | undefined) => Promise<Page<T>>;
  /** Asks again by itself, while no more than the first page was read. */
  refetchInterval?: number;
}

export function usePages<T>({ queryKey, ask, refetchInterval }: Options<T>) {
  const pages = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam }) => ask(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last: Page<T>) => last.next_cursor ?? undefined,
    refetchInterval: (query) => ((query.state.data?.pages.length ?? 0) <= 1 ? (refetchInterval ?? false) : false),
    placeholderData: (before) => before,
  });
  const rows = useMemo(() => pages.data?.pages.flatMap((page) => page.items), [pages.data]);
  return {
    data: rows,
    error: pages.error,
    isPending: pages.isPending,
    hasMore: pages.hasNextPage,
    isLoadingMore: pages.isFetchingNextPage,
    loadMore: () => void pages.fetchNextPage(),
    isStale: pages.isPlaceholderData,
    refetch: () => void pages.refetch(),
  };
}
