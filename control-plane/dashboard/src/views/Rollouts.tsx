import { Link } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { RolloutSummary } from "../api/types";
import { MemberBar, MemberLegend } from "../parts/Bar";
import { Card } from "../parts/Card";
import { Answer, Empty, More } from "../parts/feedback";
import { Head } from "../parts/Head";
import { ROLLOUT_TONE, Tag } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { count } from "../pure/format";

const PAGE = 50;

export default function Rollouts() {
  const polling = usePolling();
  const rollouts = usePages<RolloutSummary>({
    queryKey: ["rollouts", "list"],
    ask: (cursor) => take(api.GET("/api/v1/rollouts", { params: { query: { limit: PAGE, cursor } } })),
    refetchInterval: polling,
  });
  return (
    <>
      <Head title="Rollouts" />
      <Card title="All rollouts" aside={<MemberLegend />}>
        <Answer of={rollouts} lines={8}>
          {(rows) =>
            rows.length === 0 ? (
              <Empty what="Nothing was rolled out yet">
                <span>
                  Choose a <Link to="/models">version</Link> and bring it to the fleet in waves:
                </span>
                <code>edgewright rollout create --version NAME --wave 1 --wave 100%</code>
              </Empty>
            ) : (
              <>
                <ul>
                  {rows.map((rollout) => (
                    <OneRollout key={rollout.id} rollout={rollout} />
                  ))}
                </ul>
                <More of={rollouts} />
              </>
            )
          }
        </Answer>
      </Card>
    </>
  );
}

function OneRollout({ rollout }: { rollout: RolloutSummary }) {
  const waves = (rollout.policy.waves ?? []).length;
  return (
    <li className="gate">
      <div className="row apart">
        <span className="row">
          <Link to={`/rollouts/${rollout.id}`}>
            <b>{rollout.version}</b>
          </Link>
          <span className="soft small">
            to slot {rollout.slot}, wave {Math.min(rollout.wave + 1, waves)} of {waves}, {count(rollout.members.total)} devices
          </span>
        </span>
        <span className="row">
          <span className="soft small">
            <Ago at={rollout.created_at} />
          </span>
          <Tag tone={ROLLOUT_TONE[rollout.state]}>{rollout.state}</Tag>
        </span>
      </div>
      <MemberBar counts={rollout.members} label={rollout.version} />
      <span className="soft small">{rollout.reason}</span>
    </li>
  );
}
