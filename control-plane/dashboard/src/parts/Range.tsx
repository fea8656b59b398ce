// The stretch of time that charts show, kept in the page's address.
import { useSearchParams } from "react-router";
import { RANGES, rangeOf, type Range } from "../pure/series";

export function useRange(): [Range, (id: string) => void] {
  const [address, setAddress] = useSearchParams();
  const range = rangeOf(address.get("range"));
  const choose = (id: string) =>
    setAddress(
      (before) => {
        const next = new URLSearchParams(before);
        next.set("range", id);
        return next;
      },
      { replace: true },
    );
  return [range, choose];
}

export function RangePicker({ range, choose }: { range: Range; choose: (id: string) => void }) {
  return (
    <div className="segments" role="group" aria-label="Stretch of time">
      {RANGES.map(({ id, label }) => (
        <button key={id} type="button" aria-pressed={id === range.id} onClick={() => choose(id)}>
          {label}
        </button>
      ))}
    </div>
  );
}
