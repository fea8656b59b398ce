// The API's types under the names that the views use. They come from the OpenAPI document; nothing here adds to them.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type ApiToken = Schemas["ApiToken"];
export type AuditEntry = Schemas["AuditEntry"];
export type Dataset = Schemas["Dataset"];
export type Device = Schemas["Device"];
export type DeviceEvent = Schemas["DeviceEvent"];
export type FrontPoint = Schemas["FrontPoint"];
export type Gate = Schemas["Gate"];
export type Incident = Schemas["Incident"];
export type Job = Schemas["Job"];
export type JobReport = Schemas["JobReport"];
export type Me = Schemas["Me"];
export type Member = Schemas["Member"];
export type Metric = Schemas["Metric"];
export type Overview = Schemas["Overview"];
export type Phase = Schemas["Phase"];
export type Policy = Schemas["Policy"];
export type Problem = Schemas["Problem"];
export type Reading = Schemas["Reading"];
export type Role = Schemas["Role"];
export type Rollout = Schemas["Rollout"];
export type SlotReport = Schemas["SlotReport"];
export type Step = Schemas["Step"];
export type User = Schemas["User"];
export type Version = Schemas["Version"];
export type VersionLineage = Schemas["VersionLineage"];
export type Wave = Schemas["Wave"];
export type Why = Schemas["Why"];

/** A page of a list. */
export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}
