// A rollout's members, counted by wave.
import type { Member, Rollout, Wave } from "../api/types";

export type MemberState = Member["state"];

export const MEMBER_STATES: readonly MemberState[] = [
  "committed",
  "assigned",
  "pending",
  "failed",
  "reverted",
  "skipped",
];

export type Counts = Record<MemberState, number>;

export interface WaveCounts {
  /** From 0. */
  wave: number;
  total: number;
  counts: Counts;
  /** As in `10 %` or `ring=canary`. */
  takes: string;
  needsApproval: boolean;
  standing: "through" | "open" | "next" | "later";
}

function noCounts(): Counts {
  return { pending: 0, assigned: 0, committed: 0, failed: 0, reverted: 0, skipped: 0 };
}

export function takes(wave: Wave | undefined): string {
  if (wave === undefined) return "the rest";
  if (wave.percent != null) return `${wave.percent} %`;
  if (wave.count != null) return wave.count === 1 ? "1 device" : `${wave.count} devices`;
  if (wave.label != null) return `${wave.label.key}=${wave.label.value}`;
  return "the rest";
}

type Waved = Pick<Rollout, "devices" | "policy" | "wave" | "wave_closed_at" | "state">;

/** One entry a wave, in order; waves of the policy that took nobody are there too. */
export function countWaves(rollout: Waved): WaveCounts[] {
  const policy = rollout.policy.waves ?? [];
  const byWave = new Map<number, Counts>();
  let last = policy.length - 1;
  for (const member of rollout.devices) {
    last = Math.max(last, member.wave);
    let counts = byWave.get(member.wave);
    if (counts === undefined) byWave.set(member.wave, (counts = noCounts()));
    counts[member.state] += 1;
  }
  return Array.from({ length: last + 1 }, (_, wave) => {
    const counts = byWave.get(wave) ?? noCounts();
    const total = MEMBER_STATES.reduce((sum, state) => sum + counts[state], 0);
    return {
      wave,
      total,
      counts,
      takes: takes(policy[wave]),
      needsApproval: policy[wave]?.approval === true,
      standing: standing(rollout, wave),
    };
  });
}

function standing(rollout: Waved, wave: number): WaveCounts["standing"] {
  if (wave < rollout.wave || rollout.state === "completed") return "through";
  if (wave === rollout.wave) return rollout.wave_closed_at != null ? "through" : "open";
  return wave === rollout.wave + 1 ? "next" : "later";
}

/** The wave, from 0, that waits for an approval, if one does. */
export function waitingForApproval(rollout: Rollout): number | undefined {
  if (isFinal(rollout.state)) return undefined;
  const waves = rollout.policy.waves ?? [];
  const needs = (wave: number) => waves[wave]?.approval === true && !(rollout.approved ?? []).includes(wave);
  const candidates = [rollout.wave, rollout.wave + 1];
  return candidates.find((wave) => wave < waves.length && needs(wave));
}

/** Do gates behind the newest wave hold the next one back for want of evidence? */
export function waitsForEvidence(rollout: Rollout): boolean {
  const isWaived = (rollout.waived ?? []).includes(rollout.wave);
  return (
    !isFinal(rollout.state) && !isWaived && (rollout.gates ?? []).some((reading) => reading.verdict === "more")
  );
}

export function isFinal(state: Rollout["state"]): boolean {
  return state === "completed" || state === "stopped" || state === "aborted";
}
