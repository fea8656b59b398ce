import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import { Card } from "../parts/Card";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { IncidentTag } from "../parts/Tag";
import { At } from "../parts/Time";
import { viewOf } from "../pure/links";
import { sentence, words } from "../pure/format";
import { IncidentOrders } from "./IncidentOrders";

export default function Incident() {
  const { incident: id = "" } = useParams();
  const polling = usePolling();
  const incident = useQuery({
    queryKey: ["incidents", "one", id],
    queryFn: () => take(api.GET("/api/v1/incidents/{incident}", { params: { path: { incident: id } } })),
    refetchInterval: polling,
  });
  return (
    <Answer of={incident} lines={6}>
      {(data) => (
        <>
          <Head title={sentence(data.title)} beside={<IncidentTag incident={data} />}>
            <IncidentOrders incident={data} />
          </Head>
          <div className="columns">
            <Card title="Incident">
              <dl className="facts">
                <dt>Kind</dt>
                <dd>{words(data.kind)}</dd>
                <dt>Subject</dt>
                <dd>{data.subject}</dd>
                <dt>Seen</dt>
                <dd>{data.count === 1 ? "once" : `${data.count} times`}</dd>
                <dt>Opened</dt>
                <dd>
                  <At at={data.opened_at} />
                </dd>
                <dt>Changed</dt>
                <dd>
                  <At at={data.updated_at} />
                </dd>
                <dt>Acknowledged</dt>
                <dd>
                  <At at={data.acknowledged_at} />
                </dd>
                <dt>Resolved</dt>
                <dd>
                  <At at={data.resolved_at} />
                </dd>
              </dl>
            </Card>
            <Card title="Evidence">
              {data.evidence.length === 0 && <Empty what="No evidence was kept" />}
              <ol className="timeline">
                {data.evidence.map((entry, at) => {
                  const view = viewOf(entry.link);
                  return (
                    <li key={`${entry.at} ${at}`}>
                      <span className="soft small">
                        <At at={entry.at} />
                      </span>
                      <span>
                        {entry.text} {view !== undefined && <Link to={view}>Show</Link>}
                      </span>
                    </li>
                  );
                })}
              </ol>
            </Card>
          </div>
        </>
      )}
    </Answer>
  );
}
