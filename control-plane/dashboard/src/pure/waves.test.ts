import { expect, test } from "vitest";
import type { Member, Rollout } from "../api/types";
import { countWaves, takes, waitingForApproval, waitsForEvidence } from "./waves";

const member = (device: string, wave: number, state: Member["state"]): Member => ({
  device,
  wave,
  state,
  reason: "",
  generation: null,
  waited_until: null,
  assigned_at: null,
  finished_at: null,
});

const rollout = (change: Partial<Rollout>): Rollout =>
  ({
    state: "running",
    wave: 0,
    wave_closed_at: null,
    policy: { waves: [{ count: 1 }, { percent: 50, approval: true }, { label: { key: "ring", value: "late" } }] },
    devices: [],
    gates: [],
    approved: [],
    waived: [],
    ...change,
  }) as unknown as Rollout;

test("every wave of the policy is there, with or without members", () => {
  const waves = countWaves(
    rollout({ devices: [member("a", 0, "committed"), member("b", 1, "failed"), member("c", 1, "pending")] }),
  );
  expect(waves.map((wave) => wave.total)).toEqual([1, 2, 0]);
  expect(waves[1]!.counts.failed).toBe(1);
  expect(waves.map((wave) => wave.takes)).toEqual(["1 device", "50 %", "ring=late"]);
  expect(waves.map((wave) => wave.standing)).toEqual(["open", "next", "later"]);
});

test("a closed wave is through, and so are all of a completed rollout", () => {
  expect(countWaves(rollout({ wave_closed_at: 5 }))[0]!.standing).toBe("through");
  expect(countWaves(rollout({ state: "completed" })).every((wave) => wave.standing === "through")).toBe(true);
});

test("the next wave waits for its approval until it has it or nothing more comes", () => {
  expect(waitingForApproval(rollout({}))).toBe(1);
  expect(waitingForApproval(rollout({ approved: [1] }))).toBeUndefined();
  expect(waitingForApproval(rollout({ state: "stopped" }))).toBeUndefined();
});

test("a gate that wants more evidence waits unless it was waived", () => {
  const gates = [{ gate: 0, signal: "ctr", wave: 0, verdict: "more", hits: 0, of: 0, text: "" }] as Rollout["gates"];
  expect(waitsForEvidence(rollout({ gates }))).toBe(true);
  expect(waitsForEvidence(rollout({ gates, waived: [0] }))).toBe(false);
  expect(takes(undefined)).toBe("the rest");
});
