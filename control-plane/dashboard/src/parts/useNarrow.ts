import { useSyncExternalStore } from "react";

/** As wide as the style's own break. */
const narrow = window.matchMedia("(max-width: 820px)");

/** Is the page as narrow as a phone? */
export function useNarrow(): boolean {
  return useSyncExternalStore(
    (listener) => {
      narrow.addEventListener("change", listener);
      return () => narrow.removeEventListener("change", listener);
    },
    () => narrow.matches,
  );
}
