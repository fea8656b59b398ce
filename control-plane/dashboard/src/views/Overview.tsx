import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Overview as OverviewOf } from "../api/types";
import { MemberBar, MemberLegend } from "../parts/Bar";
import { Card, Figure } from "../parts/Card";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { IncidentTag, ROLLOUT_TONE, Tag } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { count, percent, sentence, short } from "../pure/format";

const INCIDENTS_SHOWN = 5;

export function Overview() {
  const polling = usePolling();
  const overview = useQuery({
    queryKey: ["overview"],
    queryFn: () => take(api.GET("/api/v1/overview")),
    refetchInterval: polling,
  });
  return (
    <>
      <Head title="Fleet" beside={overview.data && <span>as of <Ago at={overview.data.at} /></span>} />
      <Answer of={overview} lines={8}>
        {(data) => (
          <>
            <Figures of={data} />
            <div className="columns">
              <Waves of={data} />
              <OpenIncidents />
              <VersionsInUse of={data} />
              <Boards of={data} />
            </div>
          </>
        )}
      </Answer>
    </>
  );
}

function Figures({ of }: { of: OverviewOf }) {
  const { devices, incidents, jobs, ingest, rollouts } = of;
  return (
    <div className="figures">
      <Figure figure={`${count(devices.online)} / ${count(devices.total - devices.revoked)}`} name="devices online" to="/devices?online=true" />
      <Figure figure={count(devices.offline)} name="devices offline" to="/devices?online=false" />
      <Figure figure={count(rollouts.length)} name="rollouts under way" to="/rollouts" />
      <Figure
        figure={count(incidents.open)}
        name={incidents.critical > 0 ? `open incidents, ${incidents.critical} critical` : "open incidents"}
        to="/incidents"
      />
      <Figure figure={count(jobs.running)} name={jobs.queued > 0 ? `jobs running, ${jobs.queued} queued` : "jobs running"} to="/jobs" />
      <Figure figure={`${short(ingest.per_s)} /s`} name={`messages taken in, ${short(ingest.telemetry)} of telemetry so far`} />
    </div>
  );
}

function Waves({ of }: { of: OverviewOf }) {
  return (
    <Card title="Waves in progress" aside={<MemberLegend />}>
      {of.rollouts.length === 0 ? (
        <Empty what="No rollout is under way">
          <span>Begin one from a version:</span>
          <Link to="/models">Versions</Link>
        </Empty>
      ) : (
        <ul className="stack">
          {of.rollouts.map((rollout) => (
            <li key={rollout.id} className="stack">
              <div className="row apart">
                <Link to={`/rollouts/${rollout.id}`}>{rollout.version}</Link>
                <span className="row">
                  <span className="soft small">
                    wave {rollout.wave + 1} of {rollout.waves}
                  </span>
                  <Tag tone={ROLLOUT_TONE[rollout.state]}>{rollout.state}</Tag>
                </span>
              </div>
              <MemberBar counts={rollout.counts} label={rollout.version} />
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function OpenIncidents() {
  const polling = usePolling();
  const incidents = useQuery({
    queryKey: ["incidents", "open", INCIDENTS_SHOWN],
    queryFn: () => take(api.GET("/api/v1/incidents", { params: { query: { open: true, limit: INCIDENTS_SHOWN } } })),
    refetchInterval: polling,
  });
  return (
    <Card title="Open incidents" aside={<Link to="/incidents">All incidents</Link>}>
      <Answer of={incidents}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty what="Nothing is wrong">What needs a person appears here.</Empty>
          ) : (
            <ul className="stack">
              {items.map((incident) => (
                <li key={incident.id} className="row apart">
                  <Link to={`/incidents/${incident.id}`}>{sentence(incident.title)}</Link>
                  <span className="row">
                    <span className="soft small">
                      <Ago at={incident.opened_at} />
                    </span>
                    <IncidentTag incident={incident} />
                  </span>
                </li>
              ))}
            </ul>
          )
        }
      </Answer>
    </Card>
  );
}

function VersionsInUse({ of }: { of: OverviewOf }) {
  const sorted = [...of.versions].sort((a, b) => b.devices - a.devices);
  const total = Math.max(1, of.devices.total - of.devices.revoked);
  return (
    <Card title="Versions in use">
      {sorted.length === 0 ? (
        <Empty what="No device runs a model">
          <span>Give one a version by a rollout:</span>
          <code>edgewright rollout create --version NAME</code>
        </Empty>
      ) : (
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Version</th>
                <th scope="col">Slot</th>
                <th scope="col" className="number">
                  Devices
                </th>
                <th scope="col" className="number">
                  Share
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted.map((entry) => (
                <tr key={`${entry.version} ${entry.slot}`}>
                  <td>
                    <Link to={`/models/${encodeURIComponent(entry.version)}`}>{entry.version}</Link>
                  </td>
                  <td>{entry.slot}</td>
                  <td className="number">
                    <Link to={`/devices?version=${encodeURIComponent(entry.version)}`}>{count(entry.devices)}</Link>
                  </td>
                  <td className="number">{percent(entry.devices / total, 0)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}

function Boards({ of }: { of: OverviewOf }) {
  const sorted = [...of.boards].sort((a, b) => b.devices - a.devices);
  return (
    <Card title="Boards">
      {sorted.length === 0 ? (
        <Empty what="No device has enrolled">
          <span>Make a token for one:</span>
          <code>edgewright device token create --out FILE</code>
        </Empty>
      ) : (
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Board</th>
                <th scope="col" className="number">
                  Devices
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted.map((entry) => (
                <tr key={entry.board}>
                  <td>{entry.board}</td>
                  <td className="number">
                    <Link to={`/devices?board=${encodeURIComponent(entry.board)}`}>{count(entry.devices)}</Link>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}
