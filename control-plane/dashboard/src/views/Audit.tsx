import { useSearchParams } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { AuditEntry } from "../api/types";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { Tag } from "../parts/Tag";
import { Ago, At } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { VirtualTable, type Column } from "../parts/VirtualTable";
import { words } from "../pure/format";

const PAGE = 200;

const COLUMNS: ReadonlyArray<Column<AuditEntry>> = [
  { name: "At", width: "184px", wide: true, cell: (entry) => <At at={entry.at} /> },
  { name: "When", width: "108px", cell: (entry) => <Ago at={entry.at} /> },
  { name: "Who", width: "112px", cell: (entry) => <span title={entry.role ?? undefined}>{entry.user}</span> },
  { name: "What", cell: (entry) => words(entry.operation) },
  { name: "Of", wide: true, cell: (entry) => <span title={entry.target ?? undefined}>{entry.target ?? "–"}</span> },
  {
    name: "Answer",
    width: "84px",
    wide: true,
    cell: (entry) => <Tag tone={entry.status < 400 ? "ok" : "bad"}>{String(entry.status)}</Tag>,
  },
  { name: "From", width: "140px", wide: true, cell: (entry) => entry.from ?? "–" },
  { name: "Detail", wide: true, cell: (entry) => <span title={entry.detail ?? undefined}>{entry.detail ?? ""}</span> },
];

export default function Audit() {
  const [address, setAddress] = useSearchParams();
  const user = address.get("user") ?? "";
  const operation = address.get("operation") ?? "";
  const polling = usePolling();
  const entries = usePages<AuditEntry>({
    queryKey: ["audit", user, operation],
    ask: (cursor) =>
      take(
        api.GET("/api/v1/audit", {
          params: { query: { limit: PAGE, cursor, ...(user !== "" && { user }), ...(operation !== "" && { operation }) } },
        }),
      ),
    refetchInterval: polling,
  });
  const set = (key: string, value: string) =>
    setAddress(
      (before) => {
        const next = new URLSearchParams(before);
        if (value === "") next.delete(key);
        else next.set(key, value);
        return next;
      },
      { replace: true },
    );
  return (
    <>
      <Head title="Audit log" beside="Every request that changes something, also those that were refused.">
        <label>
          User
          <input type="search" defaultValue={user} onBlur={(event) => set("user", event.target.value.trim())} />
        </label>
        <label>
          Operation
          <input type="search" defaultValue={operation} placeholder="create_rollout" onBlur={(event) => set("operation", event.target.value.trim())} />
        </label>
      </Head>
      <Answer of={entries} lines={10}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty what={user === "" && operation === "" ? "Nothing was changed yet" : "No entry matches"}>
              {(user !== "" || operation !== "") && (
                <button type="button" onClick={() => setAddress({})}>
                  Show all entries
                </button>
              )}
            </Empty>
          ) : (
            <VirtualTable
              label="Audit log"
              columns={COLUMNS}
              rows={rows}
              keyOf={(entry) => String(entry.id)}
              hasMore={entries.hasMore}
              isLoadingMore={entries.isLoadingMore}
              loadMore={entries.loadMore}
            />
          )
        }
      </Answer>
    </>
  );
}
