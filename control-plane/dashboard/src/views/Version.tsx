import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Version as VersionOf } from "../api/types";
import { SeriesChart } from "../charts/Chart";
import { useFeedback } from "../charts/queries";
import { Card } from "../parts/Card";
import { Answer } from "../parts/feedback";
import { Head } from "../parts/Head";
import { RangePicker, useRange } from "../parts/Range";
import { Tag, VERSION_TONE } from "../parts/Tag";
import { At } from "../parts/Time";
import { brief, bytes } from "../pure/format";
import { Found } from "./model/Found";
import { Lineage } from "./model/Lineage";
import { Measured } from "./model/Measured";
import { StartRollout } from "./model/StartRollout";

export default function Version() {
  const { version: name = "" } = useParams();
  const polling = usePolling();
  const version = useQuery({
    queryKey: ["versions", "one", name],
    queryFn: () => take(api.GET("/api/v1/versions/{version}", { params: { path: { version: name } } })),
    refetchInterval: polling,
  });
  return (
    <>
      <Head title={version.data?.name ?? name} beside={version.data && <Tag tone={VERSION_TONE[version.data.state]}>{version.data.state}</Tag>}>
        {version.data !== undefined && (
          <>
            <Link to={`/devices?version=${encodeURIComponent(version.data.name)}`}>Devices that run it</Link>
            <StartRollout version={version.data} />
          </>
        )}
      </Head>
      <Answer of={version} lines={8}>
        {(data) => (
          <>
            <div className="columns">
              <About of={data} />
              <Lineage version={data.name} />
            </div>
            {data.report != null && <Measured report={data.report} />}
            {data.report?.search != null && <Found search={data.report.search} job={data.job ?? undefined} />}
            <Feedback version={data.name} />
          </>
        )}
      </Answer>
    </>
  );
}

function About({ of }: { of: VersionOf }) {
  return (
    <Card title="Bundle">
      <dl className="facts">
        <dt>Model</dt>
        <dd>
          <Link to={`/models?model=${encodeURIComponent(of.model)}`}>{of.model}</Link>
        </dd>
        <dt>Board</dt>
        <dd>{of.board}</dd>
        <dt>Data set</dt>
        <dd>{of.dataset ?? <span className="soft">not known</span>}</dd>
        <dt>Made</dt>
        <dd>
          <At at={of.created_at} />
        </dd>
        <dt>By</dt>
        <dd>{of.job == null ? <span className="soft">brought from elsewhere</span> : <Link to={`/jobs/${of.job}`}>job {brief(of.job)}</Link>}</dd>
        <dt>Digest</dt>
        <dd>
          <code>{of.bundle}</code>
        </dd>
        <dt>Checked</dt>
        <dd>{of.check_skipped ? <Tag tone="warn">golden outputs were not checked</Tag> : "golden outputs agree"}</dd>
      </dl>
      <div className="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">File</th>
              <th scope="col" className="number">
                Size
              </th>
              <th scope="col">SHA-256</th>
            </tr>
          </thead>
          <tbody>
            {of.files.map((file) => (
              <tr key={file.name}>
                <td>{file.name}</td>
                <td className="number nowrap">{bytes(file.size_bytes)}</td>
                <td>
                  <code title={file.digest}>{brief(file.digest)}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

function Feedback({ version }: { version: string }) {
  const [range, choose] = useRange();
  const ctr = useFeedback({ kind: "ctr", versions: [version], range });
  return (
    <Card title="Click-through of this version" aside={<RangePicker range={range} choose={choose} />}>
      <SeriesChart
        of={ctr}
        label={`Click-through rate of ${version}`}
        size="low"
        empty="Devices send feedback as soon as an app reports impressions and clicks to their local API."
      />
    </Card>
  );
}
