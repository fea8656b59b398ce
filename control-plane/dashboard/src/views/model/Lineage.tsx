// How a version came to be: its signed steps, newest first, and beneath them those of the version it went on from.
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, take } from "../../api/client";
import type { Step, VersionLineage } from "../../api/types";
import { Card } from "../../parts/Card";
import { Answer, Empty } from "../../parts/feedback";
import { At } from "../../parts/Time";
import { brief, title, words } from "../../pure/format";
import { knownDetails } from "../../pure/lineage";

export function Lineage({ version }: { version: string }) {
  const lineage = useQuery({
    queryKey: ["versions", "lineage", version],
    queryFn: () => take(api.GET("/api/v1/versions/{version}/lineage", { params: { path: { version } } })),
    staleTime: 300_000,
  });
  return (
    <Card title="Lineage">
      <Answer of={lineage} lines={6}>
        {(versions) =>
          versions.length === 0 ? (
            <Empty what="No lineage is known">Its bundle was published without one.</Empty>
          ) : (
            <div className="stack" data-testid="lineage">
              {versions.map((one, nth) => (
                <OneVersion key={one.id} lineage={one} isFirst={nth === 0} />
              ))}
            </div>
          )
        }
      </Answer>
    </Card>
  );
}

function OneVersion({ lineage, isFirst }: { lineage: VersionLineage; isFirst: boolean }) {
  return (
    <section aria-label={lineage.version}>
      <h3>
        {isFirst ? lineage.version : <Link to={`/models/${encodeURIComponent(lineage.version)}`}>{lineage.version}</Link>}
        {!isFirst && <span className="soft"> (what it went on from)</span>}
      </h3>
      {lineage.remark != null && <p className="soft small">{lineage.remark}</p>}
      <ol className="lineage">
        {[...lineage.steps].reverse().map((step, at) => (
          <li key={`${step.step} ${lineage.steps.length - at}`}>
            <span className="rail" aria-hidden="true">
              <i className={`dot ${step.step === "signing" ? "ok" : "busy"}`} />
            </span>
            <OneStep step={step} />
          </li>
        ))}
      </ol>
    </section>
  );
}

function OneStep({ step }: { step: Step }) {
  const details = knownDetails(step.details ?? {});
  return (
    <div className="what">
      <span className="row">
        <b>{title(step.step)}</b>
        <span className="soft small">
          <At at={step.at} /> by <By by={step.by} />
        </span>
      </span>
      {step.parent != null && (
        <span className="small">
          went on from <Link to={`/models/${encodeURIComponent(step.parent.version)}`}>{step.parent.version}</Link>
        </span>
      )}
      {details.length > 0 && (
        <span className="small">
          {details.map(([key, value], at) => (
            <span key={key}>
              {at > 0 && <span className="soft"> · </span>}
              <span className="soft">{words(key)}</span> {value}
            </span>
          ))}
        </span>
      )}
      <details>
        <summary>
          {step.materials.length} taken in, {step.subjects.length} given
        </summary>
        <table className="small">
          <thead>
            <tr>
              <th scope="col">Artefact</th>
              <th scope="col">SHA-256</th>
              <th scope="col">
                <span className="hidden-visually">Direction</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {step.materials.map((artefact) => (
              <tr key={`in ${artefact.name}`}>
                <td>{artefact.name}</td>
                <td>
                  <code title={artefact.digest.sha256}>{brief(artefact.digest.sha256)}</code>
                </td>
                <td className="soft">in</td>
              </tr>
            ))}
            {step.subjects.map((artefact) => (
              <tr key={`out ${artefact.name}`}>
                <td>{artefact.name}</td>
                <td>
                  <code title={artefact.digest.sha256}>{brief(artefact.digest.sha256)}</code>
                </td>
                <td className="soft">out</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </div>
  );
}

/** A job is a link to it. */
function By({ by }: { by: string }) {
  const job = /^job (\S+)$/.exec(by)?.[1];
  return job === undefined ? <>{by}</> : <Link to={`/jobs/${job}`}>job {brief(job)}</Link>;
}
