import { useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import { api, take } from "../api/client";
import { SeriesChart } from "../charts/Chart";
import { useFeedback } from "../charts/queries";
import { Card } from "../parts/Card";
import { Head } from "../parts/Head";
import { RangePicker, useRange } from "../parts/Range";
import { duration } from "../pure/format";

const NEXT = "Apps report impressions, clicks and conversions to the local API of their device; they appear here within a minute.";

/** Versions that are drawn beside all together, those on most devices first. */
const COMPARED_MAX = 3;

/** How long a window is. */
function Step({ ms }: { ms: number | undefined }) {
  return ms === undefined ? null : <span className="soft small">each {duration(ms)}</span>;
}

export default function Feedback() {
  const [address, setAddress] = useSearchParams();
  const [range, choose] = useRange();
  const version = address.get("version") ?? "";
  const overview = useQuery({ queryKey: ["overview"], queryFn: () => take(api.GET("/api/v1/overview")) });
  const inUse = [...(overview.data?.versions ?? [])].sort((a, b) => b.devices - a.devices).map((entry) => entry.version);
  const versions = [...new Set([...(version === "" ? [] : [version]), ...inUse])];
  const pick = (next: string) =>
    setAddress(
      (before) => {
        const changed = new URLSearchParams(before);
        if (next === "") changed.delete("version");
        else changed.set("version", next);
        return changed;
      },
      { replace: true },
    );
  const lines = version === "" ? ["", ...versions.slice(0, COMPARED_MAX)] : [version];
  const ctr = useFeedback({ kind: "ctr", versions: lines, range });
  const conversion = useFeedback({ kind: "conversion", versions: lines, range });
  const correction = useFeedback({ kind: "correction", versions: lines, range });
  const dwell = useFeedback({ kind: "dwell", versions: lines, range });
  return (
    <>
      <Head title="Feedback">
        <label>
          Version
          <select value={version} onChange={(event) => pick(event.target.value)}>
            <option value="">all</option>
            {versions.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <RangePicker range={range} choose={choose} />
      </Head>
      <Card title="Click-through" aside={<Step ms={ctr.data?.step_ms} />}>
        <SeriesChart of={ctr} label="Click-through rate" empty={NEXT} />
      </Card>
      <Card title="Conversion" aside={<Step ms={conversion.data?.step_ms} />}>
        <SeriesChart of={conversion} label="Conversion rate" empty={NEXT} />
      </Card>
      <div className="columns">
        <Card title="Corrections">
          <SeriesChart of={correction} label="Share of impressions with a correction" size="low" empty="Nobody corrected an answer." />
        </Card>
        <Card title="Dwell">
          <SeriesChart of={dwell} label="Dwell time" size="low" empty="No app reports how long people stay." />
        </Card>
      </div>
    </>
  );
}
