import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Device as DeviceOf, DeviceEvent, SlotReport } from "../api/types";
import { SeriesChart } from "../charts/Chart";
import { useMetrics, useTelemetry, type Asked } from "../charts/queries";
import { Act } from "../parts/Act";
import { Card } from "../parts/Card";
import { Answer, Empty, More } from "../parts/feedback";
import { Head } from "../parts/Head";
import { RangePicker, useRange } from "../parts/Range";
import { PhaseTag, Presence, Tag } from "../parts/Tag";
import { Ago, At } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { bytes, metricTitle, words } from "../pure/format";
import type { Range } from "../pure/series";
import { EditLabels } from "./EditLabels";

const EVENTS_PAGE = 50;

export default function Device() {
  const { device: id = "" } = useParams();
  const polling = usePolling();
  const device = useQuery({
    queryKey: ["device", id],
    queryFn: () => take(api.GET("/api/v1/devices/{device}", { params: { path: { device: id } } })),
    refetchInterval: polling,
  });
  return (
    <>
      <Head
        title={id}
        beside={
          device.data && (
            <>
              <Presence device={device.data} />
              <span>{device.data.board}</span>
              <span>
                seen <Ago at={device.data.seen_at} />
              </span>
            </>
          )
        }
      >
        <Act
          role="admin"
          tone="danger"
          touches={["device", "devices", "overview"]}
          disabled={device.data === undefined || device.data.revoked_at != null}
          act={() => take(api.POST("/api/v1/devices/{device}/revoke", { params: { path: { device: id } } }))}
          question="Its certificate is withdrawn for good: it is put out, and has to enrol again under another name."
        >
          Revoke
        </Act>
      </Head>
      <Answer of={device} lines={8}>
        {(data) => (
          <>
            <div className="columns">
              <About of={data} />
              <Slots of={data} />
            </div>
            <Numbers id={id} />
            <History id={id} />
          </>
        )}
      </Answer>
    </>
  );
}

function About({ of }: { of: DeviceOf }) {
  const { reported } = of;
  const isBehind = (reported?.generation ?? 0) < of.generation;
  return (
    <Card title="State" aside={<EditLabels device={of} />}>
      <dl className="facts">
        <dt>Labels</dt>
        <dd className="row">
          {Object.entries(of.labels).map(([key, value]) => (
            <span key={key} className="tag label">
              {key}={value}
            </span>
          ))}
          {Object.keys(of.labels).length === 0 && <span className="soft">none</span>}
        </dd>
        <dt>Agent</dt>
        <dd>{of.agent_version}</dd>
        <dt>Desired generation</dt>
        <dd>
          {of.generation} <span className="soft">since</span> <At at={of.desired_at === 0 ? null : of.desired_at} />
        </dd>
        <dt>Reported generation</dt>
        <dd className="row">
          {reported?.generation ?? "none"}
          {isBehind ? <Tag tone="warn">behind</Tag> : <Tag tone="ok">as desired</Tag>}
        </dd>
        <dt>Reported</dt>
        <dd>
          <Ago at={reported?.at} />
        </dd>
        <dt>Free for models</dt>
        <dd>{reported?.disk_free_bytes == null ? <span className="soft">not said</span> : bytes(reported.disk_free_bytes)}</dd>
        <dt>Local API</dt>
        <dd>{reported?.api ?? <span className="soft">does not listen</span>}</dd>
        <dt>Enrolled</dt>
        <dd>
          <At at={of.enrolled_at} />
        </dd>
      </dl>
    </Card>
  );
}

function Slots({ of }: { of: DeviceOf }) {
  const names = [...new Set([...of.assignments.map((one) => one.slot), ...(of.reported?.slots ?? []).map((one) => one.slot)])].sort();
  return (
    <Card title="Desired and reported">
      {names.length === 0 ? (
        <Empty what="It shall run nothing">
          <span>A rollout gives it a version:</span>
          <Link to="/models">Versions</Link>
        </Empty>
      ) : (
        <div className="scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Slot</th>
                <th scope="col">Desired</th>
                <th scope="col">Runs</th>
                <th scope="col">Phase</th>
                <th scope="col">Runtime</th>
                <th scope="col">Last attempt</th>
              </tr>
            </thead>
            <tbody>
              {names.map((name) => {
                const desired = of.assignments.find((one) => one.slot === name);
                const slot = of.reported?.slots.find((one) => one.slot === name);
                return (
                  <tr key={name}>
                    <th scope="row">{name}</th>
                    <td>
                      {desired === undefined ? <span className="soft">nothing</span> : <VersionLink of={desired} />}
                      {desired?.rollout != null && (
                        <div className="small">
                          <Link to={`/rollouts/${desired.rollout}?device=${encodeURIComponent(of.id)}`}>its rollout</Link>
                        </div>
                      )}
                    </td>
                    <td>{slot?.active == null ? <span className="soft">nothing</span> : <VersionLink of={slot.active} />}</td>
                    <td>{slot === undefined ? "–" : <PhaseOf slot={slot} />}</td>
                    <td>{slot?.runtime ?? "–"}</td>
                    <td>{slot?.attempt == null ? "–" : <AttemptOf attempt={slot.attempt} />}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}

function VersionLink({ of }: { of: { model: string; version: string } }) {
  const name = `${of.model}@${of.version}`;
  return <Link to={`/models/${encodeURIComponent(name)}`}>{name}</Link>;
}

function PhaseOf({ slot }: { slot: SlotReport }) {
  return (
    <>
      <PhaseTag phase={slot.phase} />
      {slot.phase.name === "waiting" && <div className="small soft">{slot.phase.reason}</div>}
    </>
  );
}

function AttemptOf({ attempt }: { attempt: NonNullable<SlotReport["attempt"]> }) {
  const { outcome } = attempt;
  const tone = outcome.name === "committed" ? "ok" : "bad";
  return (
    <>
      <Tag tone={tone}>{outcome.name === "refused" ? `refused: ${words(outcome.reason)}` : words(outcome.name)}</Tag>{" "}
      <span className="small soft">
        <Ago at={attempt.at} />
      </span>
      {outcome.name !== "committed" && <div className="small soft">{outcome.detail}</div>}
    </>
  );
}

const CHARTS: ReadonlyArray<{ title: string; lines: readonly Asked[] }> = [
  {
    title: "Latency of an inference: percentiles",
    lines: [
      { name: "median", metric: "latency_p50_us", aggregation: "avg" },
      { name: "99th percentile", metric: "latency_p99_us", aggregation: "avg" },
      { name: "worst 99th percentile", metric: "latency_p99_us", aggregation: "max" },
    ],
  },
  {
    title: "Requests",
    lines: [
      { name: "served", metric: "requests", aggregation: "sum" },
      { name: "failed", metric: "failed", aggregation: "sum" },
    ],
  },
  { title: "Memory of the agent", lines: [{ name: "resident", metric: "rss_bytes", aggregation: "avg" }] },
];

function Numbers({ id }: { id: string }) {
  const [range, choose] = useRange();
  return (
    <Card title="Measured on the device" aside={<RangePicker range={range} choose={choose} />}>
      <div className="columns">
        {CHARTS.map((chart) => (
          <Measured key={chart.title} title={chart.title} lines={chart.lines} device={id} range={range} />
        ))}
        <Another device={id} range={range} />
      </div>
    </Card>
  );
}

interface MeasuredProps {
  title: string;
  lines: readonly Asked[];
  device: string;
  range: Range;
}

function Measured({ title: name, lines, device, range }: MeasuredProps) {
  const answer = useTelemetry({ lines, device, range });
  return (
    <div className="stack">
      <h3>{name}</h3>
      <SeriesChart
        of={answer}
        label={`${name} of ${device}`}
        size="low"
        empty="Choose a longer stretch of time, or send requests to the device."
      />
    </div>
  );
}

/** Any other metric, as whoever looks chooses. */
function Another({ device, range }: { device: string; range: Range }) {
  const [chosen, choose] = useState("impressions");
  const metrics = useMetrics();
  const metric = metrics.data?.items.find((one) => one.name === chosen);
  return (
    <div className="stack">
      <label>
        Another metric
        <select value={chosen} onChange={(event) => choose(event.target.value)}>
          {(metrics.data?.items ?? [{ name: chosen }]).map((one) => (
            <option key={one.name} value={one.name}>
              {metricTitle(one.name)}
            </option>
          ))}
        </select>
      </label>
      <Measured
        title={metricTitle(chosen)}
        lines={[{ name: metricTitle(chosen), metric: chosen, aggregation: metric?.kind === "gauge" ? "avg" : "sum" }]}
        device={device}
        range={range}
      />
    </div>
  );
}

const GOOD = new Set(["trial_passed", "version_activated", "trust_updated", "certificate_renewed", "agent_started", "bundle_staged"]);
const POOR = new Set(["bundle_refused", "desired_refused", "trial_failed", "rolled_back", "disk_full", "trust_refused", "certificate_expired"]);

function toneOf(event: DeviceEvent) {
  if (GOOD.has(event.kind)) return "ok";
  return POOR.has(event.kind) ? "bad" : "idle";
}

function History({ id }: { id: string }) {
  const polling = usePolling();
  const events = usePages<DeviceEvent>({
    queryKey: ["device", id, "events"],
    ask: (cursor) =>
      take(api.GET("/api/v1/devices/{device}/events", { params: { path: { device: id }, query: { limit: EVENTS_PAGE, cursor } } })),
    refetchInterval: polling,
  });
  return (
    <Card title="What happened">
      <Answer of={events}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty what="Nothing happened yet">The device tells of downloads, trials and what it refused.</Empty>
          ) : (
            <>
              <div className="scroll">
                <table>
                  <thead>
                    <tr>
                      <th scope="col">When</th>
                      <th scope="col">What</th>
                      <th scope="col">Slot</th>
                      <th scope="col">Detail</th>
                    </tr>
                  </thead>
                  <tbody>
                    {rows.map((event) => (
                      <tr key={event.id}>
                        <td className="soft">
                          <Ago at={event.at} />
                        </td>
                        <td>
                          <Tag tone={toneOf(event)}>{words(event.kind)}</Tag>
                        </td>
                        <td>{event.slot ?? "–"}</td>
                        <td>{event.detail}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              <More of={events} />
            </>
          )
        }
      </Answer>
    </Card>
  );
}
