// Why a device is where it is in a rollout.
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, take } from "../../api/client";
import type { Rollout } from "../../api/types";
import { Answer } from "../../parts/feedback";
import { MEMBER_TONE, Tag } from "../../parts/Tag";
import { At } from "../../parts/Time";
import { isFinal } from "../../pure/waves";

const REFRESH_MS = 5000;

export function WhyPanel({ rollout, device, close }: { rollout: Rollout; device: string; close: () => void }) {
  const why = useQuery({
    queryKey: ["rollouts", rollout.id, "why", device],
    queryFn: () =>
      take(api.GET("/api/v1/rollouts/{rollout}/why/{device}", { params: { path: { rollout: rollout.id, device } } })),
    refetchInterval: isFinal(rollout.state) ? false : REFRESH_MS,
  });
  return (
    <section className="note" aria-label={`Why ${device} is where it is`} aria-live="polite" data-testid="why">
      <div className="row apart">
        <h3>
          Why is <Link to={`/devices/${encodeURIComponent(device)}`}>{device}</Link> there?
        </h3>
        <button className="plain" type="button" onClick={close}>
          Close
        </button>
      </div>
      <Answer of={why} lines={2}>
        {(data) => (
          <div className="stack">
            <p className="row">
              <Tag tone={MEMBER_TONE[data.state]}>{data.state}</Tag>
              <span>{data.reason}</span>
            </p>
            {data.waits_for.length > 0 && (
              <div>
                <span className="small soft">Before it is asked, all of this has to change:</span>
                <ol className="holds">
                  {data.waits_for.map((hold) => (
                    <li key={hold}>{hold}</li>
                  ))}
                </ol>
              </div>
            )}
            <dl className="facts">
              <dt>The rollout</dt>
              <dd>{data.rollout}</dd>
              <dt>Asked</dt>
              <dd>
                <At at={data.assigned_at} />
              </dd>
              <dt>Finished</dt>
              <dd>
                <At at={data.finished_at} />
              </dd>
              {data.trial != null && (
                <>
                  <dt>Its trial</dt>
                  <dd>
                    {data.trial.requests} requests, {data.trial.failed} failed, {data.trial.agreed} of {data.trial.compared} as the version
                    before
                  </dd>
                </>
              )}
            </dl>
          </div>
        )}
      </Answer>
    </section>
  );
}
