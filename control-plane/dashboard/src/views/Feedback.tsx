import { useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import { api, take } from "../api/client";
import { SeriesChart } from "../charts/Chart";
import { useFeedback } from "../charts/queries";
import { Card } from "../parts/Card";
import { Head } from "../parts/Head";
import { RangePicker, useRange } from "../parts/Range";

const NEXT = "Apps report impressions, clicks and conversions to the local API of their device; they appear here within a minute.";

export default function Feedback() {
  const [address, setAddress] = useSearchParams();
  const [range, choose] = useRange();
  const version = address.get("version") ?? "";
  const overview = useQuery({ queryKey: ["overview"], queryFn: () => take(api.GET("/api/v1/overview")) });
  const versions = [...new Set([...(version === "" ? [] : [version]), ...(overview.data?.versions ?? []).map((entry) => entry.version)])];
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
  const of = { version, range };
  const ctr = useFeedback({ kind: "ctr", step: "60s", ...of });
  const conversion = useFeedback({ kind: "conversion", step: "5m", ...of });
  const correction = useFeedback({ kind: "correction", step: "auto", ...of });
  const dwell = useFeedback({ kind: "dwell", step: "auto", ...of });
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
      <Card title="Click-through, each minute">
        <SeriesChart of={ctr} label="Click-through rate, each minute" empty={NEXT} />
      </Card>
      <Card title="Conversion, each five minutes">
        <SeriesChart of={conversion} label="Conversion rate, each five minutes" empty={NEXT} />
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
