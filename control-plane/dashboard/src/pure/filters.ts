// Filters of the device list, as they stand in the page's address.

/** How far a device is on its way to what it shall run. */
export const DEVICE_STATES = ["current", "behind", "revoked"] as const;
export type DeviceState = (typeof DEVICE_STATES)[number];

export interface DeviceFilters {
  search: string;
  board: string;
  online: "" | "true" | "false";
  version: string;
  group: string;
  state: DeviceState | "";
  /** Each as `key=value`. */
  labels: string[];
}

export function readFilters(address: URLSearchParams): DeviceFilters {
  const online = address.get("online");
  return {
    search: address.get("search") ?? "",
    board: address.get("board") ?? "",
    online: online === "true" || online === "false" ? online : "",
    version: address.get("version") ?? "",
    group: address.get("group") ?? "",
    state: DEVICE_STATES.find((state) => state === address.get("state")) ?? "",
    labels: address.getAll("label").filter((label) => /^[^=]+=/.test(label)),
  };
}

export function writeFilters(filters: DeviceFilters): URLSearchParams {
  const address = new URLSearchParams();
  for (const key of ["search", "board", "online", "version", "group", "state"] as const) {
    if (filters[key] !== "") address.set(key, filters[key]);
  }
  for (const label of filters.labels) address.append("label", label);
  return address;
}

export interface DeviceQuery {
  search?: string;
  board?: string;
  online?: boolean;
  version?: string;
  group?: string;
  state?: DeviceState;
  label?: string[];
}

/** The API's parameters: what is not filtered by is not said. */
export function asQuery(filters: DeviceFilters): DeviceQuery {
  const query: DeviceQuery = {};
  if (filters.search !== "") query.search = filters.search;
  if (filters.board !== "") query.board = filters.board;
  if (filters.online !== "") query.online = filters.online === "true";
  if (filters.version !== "") query.version = filters.version;
  if (filters.group !== "") query.group = filters.group;
  if (filters.state !== "") query.state = filters.state;
  if (filters.labels.length > 0) query.label = filters.labels;
  return query;
}

export function isFiltered(filters: DeviceFilters): boolean {
  return Object.keys(asQuery(filters)).length > 0;
}
