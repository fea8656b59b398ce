import { Link } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Job } from "../api/types";
import { ProgressBar } from "../parts/Bar";
import { Card } from "../parts/Card";
import { Answer, Empty, More } from "../parts/feedback";
import { Head } from "../parts/Head";
import { JOB_TONE, Tag } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { percent } from "../pure/format";

const PAGE = 30;
const RUNNING_MS = 2000;

export default function Jobs() {
  const polling = usePolling();
  const jobs = usePages<Job>({
    queryKey: ["jobs", "list"],
    ask: (cursor) => take(api.GET("/api/v1/jobs", { params: { query: { limit: PAGE, cursor } } })),
    refetchInterval: Math.min(polling, RUNNING_MS),
  });
  return (
    <>
      <Head title="Searches and jobs" />
      <Card title="All jobs">
        <Answer of={jobs} lines={8}>
          {(rows) =>
            rows.length === 0 ? (
              <Empty what="No job has run yet">
                <span>Register a data set, then search a model for it:</span>
                <code>edgewright search start --dataset NAME --board BOARD --model NAME</code>
              </Empty>
            ) : (
              <>
                <ul>
                  {rows.map((job) => (
                    <OneJob key={job.id} job={job} />
                  ))}
                </ul>
                <More of={jobs} />
              </>
            )
          }
        </Answer>
      </Card>
    </>
  );
}

function OneJob({ job }: { job: Job }) {
  const accuracy = job.report?.model.accuracy_int8;
  return (
    <li className="gate">
      <div className="row apart">
        <span className="row">
          <Link to={`/jobs/${job.id}`}>
            <b>{job.model}</b>
          </Link>
          <span className="soft small">
            {job.task} on {job.dataset} for {job.board}
            {job.method != null && `, by ${job.method}`}
          </span>
        </span>
        <span className="row">
          {accuracy != null && <span className="small number">{percent(accuracy, 2)}</span>}
          {job.version != null && <Link to={`/models/${encodeURIComponent(job.version)}`}>{job.version}</Link>}
          <span className="soft small">
            <Ago at={job.finished_at ?? job.created_at} />
          </span>
          <Tag tone={JOB_TONE[job.state]}>{job.state}</Tag>
        </span>
      </div>
      {job.state === "running" && <JobProgress job={job} />}
      {job.error != null && <span className="bad small">{job.error}</span>}
    </li>
  );
}

export function JobProgress({ job }: { job: Job }) {
  const { stage, step, total, loss, accuracy, message, resumed_from } = job.progress;
  return (
    <div className="stack" aria-live="off">
      <ProgressBar share={total > 0 ? step / total : 0} label={`${job.model}: ${stage ?? "begins"}`} />
      <span className="soft small number">
        {stage ?? "begins"}, step {step} of {total}
        {loss != null && `, loss ${loss.toFixed(4)}`}
        {accuracy != null && `, accuracy ${percent(accuracy, 2)}`}
        {resumed_from != null && `, went on from step ${resumed_from}`}
      </span>
      {message != null && <span className="soft small">{message}</span>}
    </div>
  );
}
