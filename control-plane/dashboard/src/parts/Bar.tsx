import { MEMBER_STATES, type Counts } from "../pure/waves";
import { MEMBER_TONE } from "./Tag";

/** Members of a wave, or of a rollout, by their state. */
export function MemberBar({ counts, label }: { counts: Partial<Counts>; label: string }) {
  const total = MEMBER_STATES.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
  const said = MEMBER_STATES.filter((state) => (counts[state] ?? 0) > 0).map((state) => `${counts[state]} ${state}`);
  return (
    <div className="bar" role="img" aria-label={`${label}: ${said.join(", ") || "nobody"}`} title={said.join(", ")}>
      {MEMBER_STATES.filter((state) => state !== "pending").map((state) => {
        const share = total > 0 ? (counts[state] ?? 0) / total : 0;
        return share > 0 ? <i key={state} className={`fill-${MEMBER_TONE[state]}`} style={{ width: `${share * 100}%` }} /> : null;
      })}
    </div>
  );
}

export function ProgressBar({ share, label }: { share: number; label: string }) {
  const whole = Math.min(100, Math.max(0, share * 100));
  return (
    <div className="bar" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(whole)}>
      <i className="fill-busy" style={{ width: `${whole}%` }} />
    </div>
  );
}

export function MemberLegend() {
  return (
    <div className="legend" aria-hidden="true">
      {MEMBER_STATES.map((state) => (
        <span key={state}>
          <i className={`dot ${MEMBER_TONE[state]}`} />
          {state}
        </span>
      ))}
    </div>
  );
}
