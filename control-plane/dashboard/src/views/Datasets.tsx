import { api, take } from "../api/client";
import type { Dataset } from "../api/types";
import { Card } from "../parts/Card";
import { Answer, Empty, More } from "../parts/feedback";
import { Head } from "../parts/Head";
import { Ago } from "../parts/Time";
import { usePages } from "../parts/usePages";
import { brief, count, words } from "../pure/format";

const PAGE = 50;
const LABELS_SHOWN = 6;

export default function Datasets() {
  const datasets = usePages<Dataset>({
    queryKey: ["datasets"],
    ask: (cursor) => take(api.GET("/api/v1/datasets", { params: { query: { limit: PAGE, cursor } } })),
    refetchInterval: 30_000,
  });
  return (
    <>
      <Head title="Data sets" />
      <Card title="All data sets">
        <Answer of={datasets} lines={6}>
          {(rows) =>
            rows.length === 0 ? (
              <Empty what="No data set is registered">
                <span>Images, series, tables, sentences or text, from a folder or file of the server:</span>
                <code>edgewright dataset add NAME --path FOLDER</code>
              </Empty>
            ) : (
              <div className="scroll">
                <table>
                  <thead>
                    <tr>
                      <th scope="col">Data set</th>
                      <th scope="col">Task</th>
                      <th scope="col" className="number">
                        Samples
                      </th>
                      <th scope="col">Shape</th>
                      <th scope="col">Labels</th>
                      <th scope="col">To know</th>
                      <th scope="col">Registered</th>
                    </tr>
                  </thead>
                  <tbody>
                    {rows.map((dataset) => (
                      <OneDataset key={dataset.id} dataset={dataset} />
                    ))}
                  </tbody>
                </table>
              </div>
            )
          }
        </Answer>
        <More of={datasets}>Show more</More>
      </Card>
    </>
  );
}

function OneDataset({ dataset }: { dataset: Dataset }) {
  const { schema } = dataset;
  const more = schema.labels.length - LABELS_SHOWN;
  return (
    <tr>
      <th scope="row">
        {dataset.id}
        <div className="soft small">
          {words(schema.format)}, <code title={schema.digest}>{brief(schema.digest)}</code>
        </div>
      </th>
      <td>{words(schema.task)}</td>
      <td className="number nowrap">
        {count(schema.train_count)} + {count(schema.test_count)}
      </td>
      <td className="nowrap">{schema.shape.join(" × ")}</td>
      <td>
        {schema.labels.slice(0, LABELS_SHOWN).join(", ")}
        {more > 0 && <span className="soft"> and {more} more</span>}
      </td>
      <td className="small">
        {(schema.remarks ?? []).map((remark) => (
          <div key={remark}>{remark}</div>
        ))}
      </td>
      <td className="soft">
        <Ago at={dataset.registered_at} />
      </td>
    </tr>
  );
}
