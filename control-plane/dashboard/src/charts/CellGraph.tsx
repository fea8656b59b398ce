// A found cell, drawn: states from left to right, an arrow for each operation.
import { useMemo } from "react";
import { layOut, parseCell, type PlacedEdge, type PlacedNode } from "../pure/cell";

const COLUMN = 150;
const ROW = 78;
const [WIDTH, HEIGHT] = [76, 30];

/** The cell as a graph; as its text where that is no line of edges. */
export function CellGraph({ cell }: { cell: string }) {
  const graph = useMemo(() => {
    const parsed = parseCell(cell);
    return parsed === undefined ? undefined : layOut(parsed);
  }, [cell]);
  if (graph === undefined) return <pre>{cell}</pre>;

  const ys = graph.nodes.map((node) => node.y);
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const right = Math.max(...graph.nodes.map((node) => node.x));
  const bend = graph.edges.some((edge) => reach(graph.nodes, edge) > 1) ? ROW : ROW * 0.4;
  const box = [-WIDTH / 2 - 6, top * ROW - bend, right * COLUMN + WIDTH + 12, (bottom - top) * ROW + bend * 2];
  return (
    <svg className="cell-graph" viewBox={box.join(" ")} role="img" aria-label={`Cell: ${cell}`}>
      <defs>
        <marker id="cell-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
          <path className="tip" d="M0 0 8 4 0 8z" />
        </marker>
      </defs>
      {graph.edges.map((edge, at) => (
        <Edge key={at} edge={edge} nodes={graph.nodes} nth={at} />
      ))}
      {graph.nodes.map((node) => (
        <g key={node.name} transform={`translate(${node.x * COLUMN} ${node.y * ROW})`}>
          <rect className={`state ${node.kind}`} x={-WIDTH / 2} y={-HEIGHT / 2} width={WIDTH} height={HEIGHT} rx="8" />
          <text textAnchor="middle" dominantBaseline="central">
            {node.name}
          </text>
        </g>
      ))}
    </svg>
  );
}

function reach(nodes: readonly PlacedNode[], edge: PlacedEdge): number {
  return (nodes[edge.to]?.x ?? 0) - (nodes[edge.from]?.x ?? 0);
}

function Edge({ edge, nodes, nth }: { edge: PlacedEdge; nodes: readonly PlacedNode[]; nth: number }) {
  const [from, to] = [nodes[edge.from], nodes[edge.to]];
  if (from === undefined || to === undefined) return null;
  const [x1, y1] = [from.x * COLUMN + WIDTH / 2, from.y * ROW];
  const [x2, y2] = [to.x * COLUMN - WIDTH / 2 - 1, to.y * ROW];
  // What passes over other states goes around them, every second one below.
  const isLong = reach(nodes, edge) > 1;
  const side = y1 < 0 || (y1 === 0 && nth % 2 === 0) ? -1 : 1;
  const lift = isLong ? side * ROW * 0.85 : 0;
  const middle = (x1 + x2) / 2;
  const [c1, c2] = [y1 + lift, y2 + lift];
  const path = `M${x1} ${y1} C${middle} ${c1} ${middle} ${c2} ${x2} ${y2}`;
  // The labels of two edges into one place stand apart.
  const share = isLong ? 0.5 : 0.42;
  const at = bezier([y1, c1, c2, y2], share);
  const kind = edge.op === "" ? "join" : edge.op.startsWith("skip") ? "pass" : "";
  return (
    <g>
      <path className={`edge ${kind}`} d={path} markerEnd="url(#cell-tip)" />
      {edge.op !== "" && (
        <text className="op" x={bezier([x1, middle, middle, x2], share)} y={at - 5} textAnchor="middle">
          {edge.op}
        </text>
      )}
    </g>
  );
}

function bezier([a, b, c, d]: [number, number, number, number], t: number): number {
  const u = 1 - t;
  return u * u * u * a + 3 * u * u * t * b + 3 * u * t * t * c + t * t * t * d;
}
