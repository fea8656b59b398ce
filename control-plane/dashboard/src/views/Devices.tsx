import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { api, take } from "../api/client";
import type { Device, Overview } from "../api/types";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { PhaseTag, Presence } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { VirtualTable, type Column } from "../parts/VirtualTable";
import { count } from "../pure/format";
import { DEVICE_STATES, asQuery, isFiltered, readFilters, writeFilters, type DeviceFilters } from "../pure/filters";

const PAGE = 200;
const REFRESH_MS = 10_000;
/** A pause in typing after which the server is asked. */
const TYPING_MS = 250;

export default function Devices() {
  const [address, setAddress] = useSearchParams();
  const filters = readFilters(address);
  const query = asQuery(filters);
  const devices = usePages<Device>({
    queryKey: ["devices", query],
    ask: (cursor) => take(api.GET("/api/v1/devices", { params: { query: { ...query, limit: PAGE, cursor } } })),
    refetchInterval: REFRESH_MS,
  });
  const overview = useQuery({ queryKey: ["overview"], queryFn: () => take(api.GET("/api/v1/overview")) });
  const change = (part: Partial<DeviceFilters>) =>
    setAddress(writeFilters({ ...filters, ...part }), { replace: true });
  return (
    <>
      <Head title="Devices" beside={<Counted rows={devices.data} hasMore={devices.hasMore} overview={overview.data} isAll={!isFiltered(filters)} />}>
        <button type="button" onClick={devices.refetch}>
          Refresh
        </button>
      </Head>
      <Filters filters={filters} change={change} overview={overview.data} />
      <Answer of={devices} lines={10}>
        {(rows) =>
          rows.length === 0 ? (
            <Nothing isFiltered={isFiltered(filters)} />
          ) : (
            <VirtualTable
              label="Devices"
              columns={COLUMNS}
              rows={rows}
              keyOf={(device) => device.id}
              hasMore={devices.hasMore}
              isLoadingMore={devices.isLoadingMore}
              loadMore={devices.loadMore}
            />
          )
        }
      </Answer>
    </>
  );
}

interface CountedProps {
  rows: Device[] | undefined;
  hasMore: boolean;
  overview: Overview | undefined;
  isAll: boolean;
}

function Counted({ rows, hasMore, overview, isAll }: CountedProps) {
  if (rows === undefined) return null;
  if (isAll && overview !== undefined) return <span role="status">{count(overview.devices.total)} devices</span>;
  return <span role="status">{hasMore ? `the first ${count(rows.length)} that match` : `${count(rows.length)} match`}</span>;
}

function Nothing({ isFiltered: isNarrowed }: { isFiltered: boolean }) {
  return isNarrowed ? (
    <Empty what="No device matches">
      <Link to="/devices">Show all devices</Link>
    </Empty>
  ) : (
    <Empty what="No device has enrolled">
      <span>Make a token, bring it to the device, and start its agent with it:</span>
      <code>edgewright device token create --out FILE</code>
    </Empty>
  );
}

interface FiltersProps {
  filters: DeviceFilters;
  change: (part: Partial<DeviceFilters>) => void;
  overview: Overview | undefined;
}

function Filters({ filters, change, overview }: FiltersProps) {
  const versions = [...new Set(overview?.versions.map((entry) => entry.version))];
  const groups = useQuery({
    queryKey: ["groups"],
    queryFn: () => take(api.GET("/api/v1/groups")),
    staleTime: 60_000,
  });
  return (
    <form className="filters" role="search" aria-label="Devices" onSubmit={(event) => event.preventDefault()}>
      <Typed label="Search" placeholder="part of an id or a label" value={filters.search} change={(search) => change({ search })} />
      <label>
        Presence
        <select value={filters.online} onChange={(event) => change({ online: event.target.value as DeviceFilters["online"] })}>
          <option value="">all</option>
          <option value="true">online</option>
          <option value="false">offline</option>
        </select>
      </label>
      <label>
        State
        <select value={filters.state} onChange={(event) => change({ state: event.target.value as DeviceFilters["state"] })}>
          <option value="">all</option>
          {DEVICE_STATES.map((state) => (
            <option key={state}>{state}</option>
          ))}
        </select>
      </label>
      <Choice label="Board" value={filters.board} options={overview?.boards.map((entry) => entry.board) ?? []} change={(board) => change({ board })} />
      <Choice label="Version" value={filters.version} options={versions} change={(version) => change({ version })} />
      <Choice
        label="Group"
        value={filters.group}
        options={groups.data?.items.map((group) => group.name) ?? []}
        change={(group) => change({ group })}
      />
      {filters.labels.length > 0 && (
        <div className="row wideinput">
          {filters.labels.map((label) => (
            <button
              key={label}
              type="button"
              aria-label={`Remove the filter ${label}`}
              onClick={() => change({ labels: filters.labels.filter((other) => other !== label) })}
            >
              <code>{label}</code> ×
            </button>
          ))}
        </div>
      )}
    </form>
  );
}

interface ChoiceProps {
  label: string;
  value: string;
  options: string[];
  change: (value: string) => void;
}

function Choice({ label, value, options, change }: ChoiceProps) {
  const shown = value !== "" && !options.includes(value) ? [value, ...options] : options;
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => change(event.target.value)}>
        <option value="">all</option>
        {shown.map((option) => (
          <option key={option}>{option}</option>
        ))}
      </select>
    </label>
  );
}

/** A text that is taken once nobody types any more. */
function Typed({ label, placeholder, value, change }: { label: string; placeholder: string; value: string; change: (value: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text.trim() === value) return undefined;
    const timer = window.setTimeout(() => change(text.trim()), TYPING_MS);
    return () => window.clearTimeout(timer);
    // Only what is typed starts the pause anew.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [text]);
  return (
    <label>
      {label}
      <input type="search" value={text} placeholder={placeholder} onChange={(event) => setText(event.target.value)} />
    </label>
  );
}

const COLUMNS: ReadonlyArray<Column<Device>> = [
  {
    name: "Device",
    cell: (device) => (
      <Link to={`/devices/${encodeURIComponent(device.id)}`} title={device.id}>
        {device.id}
      </Link>
    ),
  },
  { name: "Presence", width: "104px", cell: (device) => <Presence device={device} /> },
  { name: "Board", wide: true, cell: (device) => device.board },
  {
    name: "Runs",
    cell: (device) => {
      const active = (device.reported?.slots ?? []).flatMap((slot) => (slot.active == null ? [] : [slot.active]));
      if (active.length === 0) return <span className="soft">no model</span>;
      return active.map((version) => `${version.model}@${version.version}`).join(", ");
    },
  },
  {
    name: "Phase",
    width: "140px",
    wide: true,
    cell: (device) => {
      const slots = device.reported?.slots ?? [];
      const slot = slots.find((one) => one.phase.name !== "idle") ?? slots[0];
      return slot === undefined ? <span className="soft">–</span> : <PhaseTag phase={slot.phase} />;
    },
  },
  {
    name: "Labels",
    width: "23%",
    wide: true,
    cell: (device) =>
      Object.entries(device.labels).map(([key, value]) => (
        <Link key={key} className="tag label" to={`/devices?label=${encodeURIComponent(`${key}=${value}`)}`}>
          {key}={value}
        </Link>
      )),
  },
  { name: "Seen", width: "110px", wide: true, cell: (device) => <Ago at={device.seen_at} /> },
];
