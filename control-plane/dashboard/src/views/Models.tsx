import { useSearchParams, Link } from "react-router";
import { api, take } from "../api/client";
import { usePolling } from "../api/live";
import type { Version } from "../api/types";
import { Answer, Empty } from "../parts/feedback";
import { Head } from "../parts/Head";
import { Tag, VERSION_TONE } from "../parts/Tag";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { VirtualTable, type Column } from "../parts/VirtualTable";
import { bytes, percent } from "../pure/format";

const PAGE = 100;

const COLUMNS: ReadonlyArray<Column<Version>> = [
  { name: "Version", cell: (version) => <Link to={`/models/${encodeURIComponent(version.name)}`}>{version.name}</Link> },
  { name: "State", width: "100px", cell: (version) => <Tag tone={VERSION_TONE[version.state]}>{version.state}</Tag> },
  { name: "Board", wide: true, cell: (version) => version.board },
  {
    name: "Accuracy",
    width: "100px",
    className: "number",
    cell: (version) => {
      const accuracy = version.report?.model.accuracy_int8;
      return accuracy == null ? "–" : percent(accuracy, 2);
    },
  },
  { name: "Size", width: "100px", className: "number", wide: true, cell: (version) => bytes(version.size_bytes) },
  { name: "Data set", wide: true, cell: (version) => version.dataset ?? "–" },
  { name: "Made", width: "110px", wide: true, cell: (version) => <Ago at={version.created_at} /> },
];

export default function Models() {
  const [address, setAddress] = useSearchParams();
  const model = address.get("model") ?? "";
  const polling = usePolling();
  const versions = usePages<Version>({
    queryKey: ["versions", model],
    ask: (cursor) =>
      take(api.GET("/api/v1/versions", { params: { query: { limit: PAGE, cursor, ...(model !== "" && { model }) } } })),
    refetchInterval: polling,
  });
  const models = [...new Set(versions.data?.map((version) => version.model))].sort();
  const shown = model !== "" && !models.includes(model) ? [model, ...models] : models;
  return (
    <>
      <Head title="Versions">
        <label>
          Model
          <select value={model} onChange={(event) => setAddress(event.target.value === "" ? {} : { model: event.target.value })}>
            <option value="">all</option>
            {shown.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      </Head>
      <Answer of={versions} lines={8}>
        {(rows) =>
          rows.length === 0 ? (
            <Empty what="There is no version yet">
              <span>Search a model for a data set and a board, or bring one:</span>
              <code>edgewright search start --dataset NAME --board BOARD --model NAME</code>
              <code>edgewright model import FILE</code>
            </Empty>
          ) : (
            <VirtualTable
              label="Versions"
              columns={COLUMNS}
              rows={rows}
              keyOf={(version) => version.id}
              hasMore={versions.hasMore}
              isLoadingMore={versions.isLoadingMore}
              loadMore={versions.loadMore}
            />
          )
        }
      </Answer>
    </>
  );
}
