import { Link, useSearchParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Incident } from "../api/types";
import { Card } from "../parts/Card";
import { Answer, Empty, More } from "../parts/feedback";
import { Head } from "../parts/Head";
import { IncidentTag } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { sentence, words } from "../pure/format";
import { IncidentOrders } from "./IncidentOrders";

const PAGE = 50;

export default function Incidents() {
  const [address, setAddress] = useSearchParams();
  const all = address.get("all") === "true";
  const polling = usePolling();
  const incidents = usePages<Incident>({
    queryKey: ["incidents", all],
    ask: (cursor) =>
      take(api.GET("/api/v1/incidents", { params: { query: { limit: PAGE, cursor, ...(!all && { open: true }) } } })),
    refetchInterval: polling,
  });
  return (
    <>
      <Head title="Incidents">
        <div className="segments" role="group" aria-label="Which incidents">
          <button type="button" aria-pressed={!all} onClick={() => setAddress({})}>
            open
          </button>
          <button type="button" aria-pressed={all} onClick={() => setAddress({ all: "true" })}>
            all
          </button>
        </div>
      </Head>
      <Card title={all ? "All incidents" : "Open incidents"}>
        <Answer of={incidents} lines={6}>
          {(rows) =>
            rows.length === 0 ? (
              <Empty what={all ? "Nothing was ever wrong" : "Nothing is wrong"}>
                A rollout that a gate stopped, devices that go offline together, a job that failed: what needs a person appears here.
              </Empty>
            ) : (
              <ul>
                {rows.map((incident) => (
                  <li key={incident.id} className="gate">
                    <div className="row apart">
                      <span className="row">
                        <IncidentTag incident={incident} />
                        <Link to={`/incidents/${incident.id}`}>
                          <b>{sentence(incident.title)}</b>
                        </Link>
                      </span>
                      <IncidentOrders incident={incident} />
                    </div>
                    <span className="soft small">
                      {words(incident.kind)}, {incident.subject}, opened <Ago at={incident.opened_at} />
                      {incident.count > 1 && `, seen ${incident.count} times`}
                    </span>
                  </li>
                ))}
              </ul>
            )
          }
        </Answer>
        <More of={incidents} />
      </Card>
    </>
  );
}
