// The gates behind the newest wave: what was seen, what is allowed, and what that means.
import type { Gate, Reading, Rollout } from "../../api/types";
import { Card } from "../../parts/Card";
import { Empty } from "../../parts/feedback";
import { Tag, VERDICT_TONE, VERDICT_WORD } from "../../parts/Tag";
import { count, duration, percent, title } from "../../pure/format";
import { errorsOf, limitOf, shareOf, stretch } from "../../pure/gates";

const THEN = { pause: "it pauses the rollout", stop: "it stops the rollout", open: "it opens" };

export function Gates({ rollout }: { rollout: Rollout }) {
  const gates = rollout.policy.gates ?? [];
  const readings = rollout.gates ?? [];
  return (
    <Card title="Gates">
      {gates.length === 0 && readings.length === 0 && (
        <Empty what="No gates beside failed devices">
          A policy file can ask for evidence before the next wave opens: click-through, latency, agreement, drift.
        </Empty>
      )}
      <ul data-testid="gates">
        {readings.map((reading) => (
          <OneReading key={reading.gate} reading={reading} gate={gates[reading.gate]} isWaived={(rollout.waived ?? []).includes(reading.wave)} />
        ))}
        {gates
          .map((gate, at) => ({ gate, at }))
          .filter(({ at }) => !readings.some((reading) => reading.gate === at))
          .map(({ gate, at }) => (
            <li key={at} className="gate">
              <div className="row apart">
                <b>{title(gate.signal)}</b>
                <span className="soft small">{limitOf(gate).text}</span>
              </div>
              <span className="soft small">Not read at this wave.</span>
            </li>
          ))}
      </ul>
    </Card>
  );
}

function OneReading({ reading, gate, isWaived }: { reading: Reading; gate: Gate | undefined; isWaived: boolean }) {
  const share = shareOf(reading);
  const limit = limitOf(gate);
  return (
    <li className="gate">
      <div className="row apart">
        <b>{title(reading.signal)}</b>
        <span className="row">
          {isWaived && <Tag tone="warn">waived</Tag>}
          <Tag tone={VERDICT_TONE[reading.verdict]}>{VERDICT_WORD[reading.verdict]}</Tag>
        </span>
      </div>
      {share !== undefined && <Meter share={share} limit={limit.at} tone={VERDICT_TONE[reading.verdict]} name={title(reading.signal)} />}
      <span className="small">
        {share === undefined ? "nothing seen yet" : `${percent(share, 2)}: ${count(reading.hits)} of ${count(reading.of)}`}
        {limit.text !== "" && <span className="soft"> (allowed: {limit.text})</span>}
      </span>
      <span className="small">{reading.text}</span>
      {gate !== undefined && (
        <span className="soft small">
          {errorsOf(gate)}; judged over the {gate.scope ?? "rollout"}, holds from wave {gate.from_wave ?? 1}; undecided after{" "}
          {duration(gate.wait_ms ?? 3_600_000)}, {THEN[gate.then ?? "pause"]}
        </span>
      )}
    </li>
  );
}

function Meter({ share, limit, tone, name }: { share: number; limit: number | undefined; tone: string; name: string }) {
  const text = limit === undefined ? percent(share, 2) : `${percent(share, 2)}, the limit is ${percent(limit, 2)}`;
  const { from, to } = stretch(share, limit);
  const place = (at: number) => `${(Math.min(Math.max(at, from), to) - from) / (to - from) * 100}%`;
  return (
    <div className="meter" role="img" aria-label={`${name}: ${text}`} title={text}>
      <i className={`fill-${tone}`} style={{ width: place(share) }} />
      {limit !== undefined && <u style={{ left: `calc(${place(limit)} - 1px)` }} />}
    </div>
  );
}
