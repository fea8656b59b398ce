// What a search found: its cell, and the front of the networks that it judged.
import { useState } from "react";
import { Link } from "react-router";
import type { FrontPoint, JobReport } from "../../api/types";
import { CellGraph } from "../../charts/CellGraph";
import { ParetoChart } from "../../charts/Chart";
import { Card } from "../../parts/Card";
import { Empty } from "../../parts/feedback";
import { Tag } from "../../parts/Tag";
import { bytes, micros, percent } from "../../pure/format";

type Search = NonNullable<JobReport["search"]>;

export function Found({ search, job }: { search: Search; job?: string }) {
  const points = search.front ?? [];
  const [picked, pick] = useState<FrontPoint>();
  const cell = picked?.cell ?? search.cell;
  return (
    <div className="columns">
      <Card title="Judged networks" aside={job !== undefined && <Link to={`/jobs/${job}`}>The search</Link>}>
        {points.length === 0 ? (
          <Empty what="The search judged no networks one by one">Another method, such as evolution, shows a front.</Empty>
        ) : (
          <>
            <ParetoChart points={points} onPick={pick} />
            <details>
              <summary>As a table</summary>
              <Front points={points} picked={picked} pick={pick} />
            </details>
          </>
        )}
      </Card>
      <Card
        title={picked === undefined || picked.chosen ? "The cell that was trained" : `Cell of network #${picked.index}`}
        aside={
          picked !== undefined && (
            <button className="plain" type="button" onClick={() => pick(undefined)}>
              Back to the trained one
            </button>
          )
        }
      >
        <CellGraph cell={cell} />
        <code className="small soft">{cell}</code>
        <p className="soft small">
          {search.method !== undefined && `${search.method}, `}
          {search.arch_steps > 0 && `${search.arch_steps} architecture steps, `}
          {(search.cells_judged ?? 0) > 0 && `${search.cells_judged} cells judged, `}
          {Math.round(search.seconds)} s, {percent(search.skip_share, 0)} of its edges are skip connections
        </p>
      </Card>
    </div>
  );
}

interface FrontProps {
  points: FrontPoint[];
  picked: FrontPoint | undefined;
  pick: (point: FrontPoint) => void;
}

function Front({ points, picked, pick }: FrontProps) {
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Network</th>
            <th scope="col" className="number">
              Accuracy
            </th>
            <th scope="col" className="number">
              Latency
            </th>
            <th scope="col" className="number">
              Weights
            </th>
            <th scope="col">
              <span className="hidden-visually">Standing</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {points.map((point) => (
            <tr key={point.index}>
              <td>
                <button className="plain" type="button" aria-pressed={picked?.index === point.index} onClick={() => pick(point)}>
                  #{point.index}
                </button>
              </td>
              <td className="number">{percent(point.accuracy, 2)}</td>
              <td className="number">{micros(point.latency_us)}</td>
              <td className="number">{bytes(point.weight_bytes)}</td>
              <td>{point.chosen ? <Tag tone="warn">trained</Tag> : point.on_front ? <Tag tone="ok">on the front</Tag> : null}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
