// What a test run is told: the server, who logs in, and what there is to look at.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface Scene {
  url: string;
  user: string;
  password: string;
  /** A device among many, for `fleet.spec.ts`. */
  needle?: string;
  /** How many devices there are at least. */
  devices?: number;
  /** A rollout that waits for evidence behind its second wave, for `life.spec.ts`. */
  rollout?: string;
  /** Addresses of the local APIs of devices that have its version, with the path that takes feedback. */
  feedback?: string[];
  /** A version that another one was retrained from, and that other one. */
  parent?: string;
  version?: string;
}

export const CHROMIUM = process.env["EDGEWRIGHT_CHROMIUM"] ?? "/usr/bin/chromium";

const file = process.env["EDGEWRIGHT_SCENE"];
export const SCENE: Scene =
  file === undefined
    ? { url: "http://127.0.0.1:4173", user: "admin", password: "admin" }
    : (JSON.parse(readFileSync(file, "utf8")) as Scene);

const artefacts = process.env["EDGEWRIGHT_ARTIFACTS"] ?? "test-results/screenshots";

/** Where a screenshot is kept. */
export function picture(name: string): string {
  mkdirSync(artefacts, { recursive: true });
  return join(artefacts, `${name}.png`);
}
