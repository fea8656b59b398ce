// States as coloured words. Colour never stands alone: the word is always there.
import type { Incident, Job, Member, Phase, Reading, Rollout, Version } from "../api/types";
import { words } from "../pure/format";

export type Tone = "ok" | "bad" | "busy" | "warn" | "idle";

export function Tag({ tone, children }: { tone: Tone; children: string }) {
  return <span className={`tag ${tone}`}>{children}</span>;
}

export const ROLLOUT_TONE: Record<Rollout["state"], Tone> = {
  running: "busy",
  paused: "warn",
  completed: "ok",
  stopped: "bad",
  aborted: "bad",
};

export const MEMBER_TONE: Record<Member["state"], Tone> = {
  committed: "ok",
  assigned: "busy",
  pending: "idle",
  failed: "bad",
  reverted: "warn",
  skipped: "idle",
};

export const JOB_TONE: Record<Job["state"], Tone> = {
  queued: "idle",
  running: "busy",
  done: "ok",
  failed: "bad",
  cancelled: "warn",
};

export const VERSION_TONE: Record<Version["state"], Tone> = {
  draft: "idle",
  canary: "busy",
  live: "ok",
  retired: "warn",
};

export const VERDICT_TONE: Record<Reading["verdict"], Tone> = { open: "ok", stop: "bad", more: "idle" };

/** What a gate's verdict means for the rollout. */
export const VERDICT_WORD: Record<Reading["verdict"], string> = {
  open: "open",
  stop: "stops",
  more: "needs more evidence",
};

export const SEVERITY_TONE: Record<string, Tone> = { critical: "bad", warning: "warn", info: "idle" };

export function Presence({ device }: { device: { online: boolean; revoked_at?: number | null } }) {
  if (device.revoked_at != null) return <Tag tone="bad">revoked</Tag>;
  return device.online ? <Tag tone="ok">online</Tag> : <Tag tone="idle">offline</Tag>;
}

export function PhaseTag({ phase }: { phase: Phase }) {
  switch (phase.name) {
    case "idle":
      return <Tag tone="ok">idle</Tag>;
    case "fetching":
      return <Tag tone="busy">{`fetching ${phase.chunks_done}/${phase.chunks_total}`}</Tag>;
    case "testing":
      return <Tag tone="busy">testing</Tag>;
    case "trial":
      return <Tag tone="busy">trial</Tag>;
    case "waiting":
      return <Tag tone="warn">waiting</Tag>;
  }
}

export function IncidentTag({ incident }: { incident: Incident }) {
  if (incident.resolved_at != null) return <Tag tone="ok">resolved</Tag>;
  if (incident.acknowledged_at != null) return <Tag tone="busy">acknowledged</Tag>;
  return <Tag tone={SEVERITY_TONE[incident.severity] ?? "warn"}>{words(incident.severity)}</Tag>;
}
