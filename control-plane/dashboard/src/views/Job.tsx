import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Job as JobOf } from "../api/types";
import { Act } from "../parts/Act";
import { Card } from "../parts/Card";
import { Answer, ProblemBox } from "../parts/feedback";
import { Head } from "../parts/Head";
import { JOB_TONE, Tag } from "../parts/Tag";
import { At } from "../parts/Time";
import { duration } from "../pure/format";
import { JobProgress } from "./Jobs";
import { Found } from "./model/Found";
import { Measured } from "./model/Measured";

const RUNNING_MS = 2000;

export default function Job() {
  const { job: id = "" } = useParams();
  const polling = usePolling();
  const job = useQuery({
    queryKey: ["jobs", id],
    queryFn: () => take(api.GET("/api/v1/jobs/{job}", { params: { path: { job: id } } })),
    refetchInterval: (query) => (query.state.data?.state === "running" ? Math.min(polling, RUNNING_MS) : polling),
  });
  return (
    <Answer of={job} lines={8}>
      {(data) => (
        <>
          <Head
            title={`${data.task === "search" ? "Search" : data.task === "train" ? "Training" : "Retraining"} of ${data.model}`}
            beside={
              <>
                <Tag tone={JOB_TONE[data.state]}>{data.state}</Tag>
                <span>
                  on {data.dataset} for {data.board}
                </span>
              </>
            }
          >
            {data.version != null && <Link to={`/models/${encodeURIComponent(data.version)}`}>{data.version}</Link>}
            {(data.state === "running" || data.state === "queued") && (
              <Act
                role="operator"
                tone="danger"
                touches={["jobs", "overview"]}
                act={() => take(api.POST("/api/v1/jobs/{job}/cancel", { params: { path: { job: id } } }))}
                question="What it has found so far is not kept."
              >
                Cancel the job
              </Act>
            )}
          </Head>
          {data.state === "running" && (
            <Card title="Progress">
              <JobProgress job={data} />
            </Card>
          )}
          {data.error != null && <ProblemBox error={new Error(data.error)} />}
          {data.report?.search != null && <Found search={data.report.search} />}
          <div className="columns">
            {data.report != null && <Measured report={data.report} />}
            <About of={data} />
          </div>
        </>
      )}
    </Answer>
  );
}

function About({ of }: { of: JobOf }) {
  const { budget } = of;
  return (
    <Card title="Job">
      <dl className="facts">
        {of.method != null && (
          <>
            <dt>Method</dt>
            <dd>{of.method}</dd>
          </>
        )}
        <dt>Budget</dt>
        <dd>
          {budget.seconds == null
            ? `${budget.search_steps} search steps, ${budget.train_epochs} epochs`
            : `${duration(budget.seconds * 1000)} for everything`}
          , {budget.cells} cells of {budget.nodes} nodes, {budget.channels} channels
        </dd>
        <dt>Seed</dt>
        <dd>{of.seed}</dd>
        <dt>Queued</dt>
        <dd>
          <At at={of.created_at} />
        </dd>
        <dt>Started</dt>
        <dd>
          <At at={of.started_at} />
        </dd>
        <dt>Finished</dt>
        <dd>
          <At at={of.finished_at} />
        </dd>
        <dt>Id</dt>
        <dd>
          <code>{of.id}</code>
        </dd>
      </dl>
      {of.state === "done" && (
        <details>
          <summary>How loss and accuracy went</summary>
          <img className="plot" src={`/api/v1/jobs/${of.id}/plots/loss.svg`} alt="Loss and accuracy of the training" loading="lazy" />
        </details>
      )}
    </Card>
  );
}
