// A found cell: read from its one line, and laid out as a graph.

export interface CellEdge {
  /** 0 and 1 are the cell's inputs, 2 is its first node. */
  from: number;
  to: number;
  op: string;
}

export interface Cell {
  edges: CellEdge[];
  /** Inputs and nodes. */
  states: number;
}

/** Most states of a cell: two inputs and eight nodes. */
const STATES_MAX = 10;

/** Reads a line such as `0->2 sep3 | 1->2 max3`; nothing where it is no such line. */
export function parseCell(line: string): Cell | undefined {
  const edges: CellEdge[] = [];
  for (const part of line.split("|")) {
    const match = /^\s*(\d+)\s*->\s*(\d+)\s+(\S.*?)\s*$/.exec(part);
    if (match === null) return undefined;
    const [from, to, op] = [Number(match[1]), Number(match[2]), match[3] ?? ""];
    if (from >= to || to < 2 || to >= STATES_MAX) return undefined;
    edges.push({ from, to, op });
  }
  const states = Math.max(...edges.map((edge) => edge.to)) + 1;
  return { edges, states };
}

export interface PlacedNode {
  name: string;
  kind: "input" | "node" | "output";
  x: number;
  y: number;
}

export interface PlacedEdge {
  from: number;
  to: number;
  /** Empty for what only joins a node to the output. */
  op: string;
}

export interface CellGraph {
  /** Inputs, nodes, and the output last. */
  nodes: PlacedNode[];
  edges: PlacedEdge[];
}

/** Places a cell from left to right: a state stands one column after the last that it reads. */
export function layOut(cell: Cell): CellGraph {
  const column = new Array<number>(cell.states).fill(0);
  for (let state = 2; state < cell.states; state += 1) {
    const reads = cell.edges.filter((edge) => edge.to === state).map((edge) => column[edge.from] ?? 0);
    column[state] = Math.max(0, ...reads) + 1;
  }
  const last = Math.max(...column) + 1;
  const taken = new Map<number, number>();
  const inColumn = (at: number) => column.filter((other) => other === at).length;
  const nodes: PlacedNode[] = column.map((at, state) => {
    const nth = taken.get(at) ?? 0;
    taken.set(at, nth + 1);
    const kind = state < 2 ? "input" : "node";
    return { name: kind === "input" ? `in ${state}` : `node ${state}`, kind, x: at, y: nth - (inColumn(at) - 1) / 2 };
  });
  nodes.push({ name: "concat", kind: "output", x: last, y: 0 });
  const joins: PlacedEdge[] = [];
  for (let state = 2; state < cell.states; state += 1) joins.push({ from: state, to: cell.states, op: "" });
  return { nodes, edges: [...cell.edges, ...joins] };
}
