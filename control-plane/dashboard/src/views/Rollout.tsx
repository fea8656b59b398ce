import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link, useParams, useSearchParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Member, Rollout as RolloutOf } from "../api/types";
import { MemberBar, MemberLegend } from "../parts/Bar";
import { Card } from "../parts/Card";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { MEMBER_TONE, ROLLOUT_TONE, Tag } from "../parts/Tag";
import { Ago, At } from "../parts/Time";
import { VirtualTable, type Column } from "../parts/VirtualTable";
import { bytes, count, duration } from "../pure/format";
import { MEMBER_STATES, countWaves, isFinal, type MemberState, type WaveCounts } from "../pure/waves";
import { Gates } from "./rollout/Gates";
import { Orders } from "./rollout/Orders";
import { WhyPanel } from "./rollout/WhyPanel";

/** A rollout moves by the second while devices fetch and test; one of many devices is much to send. */
const RUNNING_MS = 3000;
const MANY = 1000;
const MANY_MS = 15_000;

export default function Rollout() {
  const { rollout: id = "" } = useParams();
  const polling = usePolling();
  const rollout = useQuery({
    queryKey: ["rollouts", id],
    queryFn: () => take(api.GET("/api/v1/rollouts/{rollout}", { params: { path: { rollout: id } } })),
    refetchInterval: ({ state: { data } }) => {
      if (data !== undefined && isFinal(data.state)) return polling * 4;
      return data !== undefined && data.devices.length > MANY ? MANY_MS : Math.min(polling, RUNNING_MS);
    },
  });
  return (
    <Answer of={rollout} lines={10}>
      {(data) => (
        <>
          <Head
            title={`Rollout of ${data.version}`}
            beside={
              <>
                <Tag tone={ROLLOUT_TONE[data.state]}>{data.state}</Tag>
                <span>slot {data.slot}</span>
                <span>
                  begun <Ago at={data.created_at} />
                </span>
                {data.finished_at != null && (
                  <span>
                    ended <Ago at={data.finished_at} />
                  </span>
                )}
              </>
            }
          >
            <Orders rollout={data} />
          </Head>
          <Reason of={data} />
          <Waves of={data} />
          <div className="columns">
            <Gates rollout={data} />
            <Facts of={data} />
          </div>
          <Members of={data} />
          <History of={data} />
        </>
      )}
    </Answer>
  );
}

function Reason({ of }: { of: RolloutOf }) {
  const tone = of.state === "stopped" || of.state === "aborted" ? "problem" : of.state === "paused" ? "note" : "card";
  return (
    <p className={tone} role="status" data-testid="reason">
      {of.reason}
    </p>
  );
}

const STANDING: Record<WaveCounts["standing"], string> = {
  through: "through",
  open: "open",
  next: "next",
  later: "later",
};

function Waves({ of }: { of: RolloutOf }) {
  const waves = countWaves(of);
  return (
    <Card title="Waves" aside={<MemberLegend />}>
      <ol data-testid="waves">
        {waves.map((wave) => (
          <li key={wave.wave} className="wave" data-standing={wave.standing}>
            <span>
              <b>Wave {wave.wave + 1}</b> <span className="soft small">{wave.takes}</span>
            </span>
            <MemberBar counts={wave.counts} label={`Wave ${wave.wave + 1}`} />
            <span className="end row small">
              <span className="number">
                {count(wave.counts.committed)} of {count(wave.total)}
              </span>
              {isFinal(of.state) ? null : (
                <Tag tone={wave.standing === "open" ? "busy" : wave.standing === "through" ? "ok" : "idle"}>{STANDING[wave.standing]}</Tag>
              )}
              {wave.needsApproval && !isFinal(of.state) && <Approval of={of} wave={wave.wave} />}
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}

function Approval({ of, wave }: { of: RolloutOf; wave: number }) {
  const isApproved = (of.approved ?? []).includes(wave);
  return <Tag tone={isApproved ? "ok" : "warn"}>{isApproved ? "approved" : "needs approval"}</Tag>;
}

function Facts({ of }: { of: RolloutOf }) {
  const { policy, trial, selector } = of;
  const labels = Object.entries(selector.labels ?? {});
  const named = selector.devices ?? [];
  return (
    <Card title="How it goes on">
      <dl className="facts">
        <dt>Version</dt>
        <dd>
          <Link to={`/models/${encodeURIComponent(of.version)}`}>{of.version}</Link> for {of.board}
        </dd>
        <dt>Whom</dt>
        <dd>
          {labels.length === 0 && named.length === 0 && "every device of the board"}
          {labels.map(([key, value]) => `${key}=${value}`).join(", ")}
          {named.length > 0 && ` ${named.slice(0, 3).join(", ")}${named.length > 3 ? ` and ${named.length - 3} more` : ""}`}
        </dd>
        <dt>Failures accepted</dt>
        <dd>{(policy.failed_permille_max ?? 0) / 10} % of a wave</dd>
        <dt>Between waves</dt>
        <dd>{duration(policy.pause_ms ?? 0)}</dd>
        <dt>Time for a device</dt>
        <dd>{duration(policy.device_timeout_ms ?? 0)}</dd>
        <dt>Trial</dt>
        <dd>
          {duration(trial.duration_ms)}, at least {trial.requests_min} requests
        </dd>
        {(policy.windows ?? []).length > 0 && (
          <>
            <dt>Windows</dt>
            <dd>
              {(policy.windows ?? []).map((window) => (
                <div key={`${window.from}${window.to}${window.zone}`}>
                  {window.from}–{window.to} {window.zone} {(window.days ?? []).length < 7 && (window.days ?? []).join(", ")}
                </div>
              ))}
            </dd>
          </>
        )}
        <dt>Sent</dt>
        <dd>{bytes(of.bytes_published)}</dd>
        <dt>Id</dt>
        <dd>
          <code>{of.id}</code>
        </dd>
      </dl>
    </Card>
  );
}

function Members({ of }: { of: RolloutOf }) {
  const [address, setAddress] = useSearchParams();
  const [state, setState] = useState<MemberState | "">("");
  const [text, setText] = useState("");
  const asked = address.get("device") ?? undefined;
  const ask = (device: string | undefined) =>
    setAddress(
      (before) => {
        const next = new URLSearchParams(before);
        if (device === undefined) next.delete("device");
        else next.set("device", device);
        return next;
      },
      { replace: true, preventScrollReset: true },
    );
  const rows = useMemo(
    () => of.devices.filter((member) => (state === "" || member.state === state) && member.device.includes(text.trim())),
    [of.devices, state, text],
  );
  const columns: ReadonlyArray<Column<Member>> = [
    { name: "Device", cell: (member) => <Link to={`/devices/${encodeURIComponent(member.device)}`}>{member.device}</Link> },
    { name: "Wave", width: "64px", className: "number", wide: true, cell: (member) => member.wave + 1 },
    { name: "State", width: "124px", cell: (member) => <Tag tone={MEMBER_TONE[member.state]}>{member.state}</Tag> },
    { name: "Because", wide: true, width: "45%", cell: (member) => <span title={member.reason}>{member.reason}</span> },
    {
      name: "Why",
      width: "84px",
      cell: (member) => (
        <button className="plain" type="button" aria-label={`Why is ${member.device} there?`} onClick={() => ask(member.device)}>
          Why?
        </button>
      ),
    },
  ];
  return (
    <Card title={`Devices (${count(of.devices.length)})`}>
      <div className="row">
        <label>
          Device
          <input type="search" value={text} onChange={(event) => setText(event.target.value)} placeholder="part of an id" />
        </label>
        <label>
          State
          <select value={state} onChange={(event) => setState(event.target.value as MemberState | "")}>
            <option value="">all</option>
            {MEMBER_STATES.map((option) => (
              <option key={option}>{option}</option>
            ))}
          </select>
        </label>
      </div>
      {asked !== undefined && <WhyPanel rollout={of} device={asked} close={() => ask(undefined)} />}
      {rows.length === 0 ? (
        <Empty what={of.devices.length === 0 ? "The rollout has no device" : "No device matches"}>
          {of.devices.length === 0 && "Nobody was of the version's board and named by the selector when it began."}
        </Empty>
      ) : (
        <VirtualTable label="Devices of the rollout" columns={columns} rows={rows} keyOf={(member) => member.device} selected={asked} shallow />
      )}
    </Card>
  );
}

function History({ of }: { of: RolloutOf }) {
  const newestFirst = [...of.history].reverse();
  return (
    <Card title="History">
      <ol className="timeline">
        {newestFirst.map((entry, at) => (
          <li key={`${entry.at} ${newestFirst.length - at}`}>
            <span className="soft small">
              <At at={entry.at} />
            </span>
            <span>{entry.text}</span>
          </li>
        ))}
      </ol>
      {newestFirst.length === 0 && <Empty what="Nothing happened yet" />}
    </Card>
  );
}
