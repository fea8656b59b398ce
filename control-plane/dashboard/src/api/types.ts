// The API's types under the names that the views use. They come from the OpenAPI document; what is part of another is taken from
// there, so that its own name in the document does not matter.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type ApiToken = Schemas["ApiToken"];
export type AuditEntry = Schemas["AuditEntry"];
export type Dataset = Schemas["Dataset"];
export type Device = Schemas["Device"];
export type DeviceEvent = Schemas["DeviceEvent"];
export type Incident = Schemas["Incident"];
export type Job = Schemas["Job"];
export type Me = Schemas["Me"];
export type Metric = Schemas["Metric"];
export type Overview = Schemas["Overview"];
export type Problem = Schemas["Problem"];
export type Rollout = Schemas["Rollout"];
export type RolloutSummary = Schemas["RolloutSummary"];
export type User = Schemas["User"];
export type Version = Schemas["Version"];
export type VersionLineage = Schemas["VersionLineage"];
export type Why = Schemas["Why"];

export type Role = Me["role"];
export type SlotReport = NonNullable<Device["reported"]>["slots"][number];
export type Phase = SlotReport["phase"];
export type JobReport = NonNullable<Job["report"]>;
export type FrontPoint = NonNullable<NonNullable<JobReport["search"]>["front"]>[number];
export type Step = VersionLineage["steps"][number];
export type Policy = Rollout["policy"];
export type Wave = NonNullable<Policy["waves"]>[number];
export type Gate = NonNullable<Policy["gates"]>[number];
export type Member = Rollout["devices"][number];
export type Reading = NonNullable<Rollout["gates"]>[number];

/** A page of a list. */
export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}
