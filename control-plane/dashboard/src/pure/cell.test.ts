import { expect, test } from "vitest";
import { layOut, parseCell } from "./cell";

test("a cell's line gives its edges", () => {
  const cell = parseCell("0->2 sep3 | 1->2 max3 | 2->3 skip | 0->3 conv1x3");
  expect(cell?.states).toBe(4);
  expect(cell?.edges).toEqual([
    { from: 0, to: 2, op: "sep3" },
    { from: 1, to: 2, op: "max3" },
    { from: 2, to: 3, op: "skip" },
    { from: 0, to: 3, op: "conv1x3" },
  ]);
});

test("what is no cell is not drawn", () => {
  for (const line of ["", "in 0  in 1", "2->2 sep3", "3->2 sep3", "0->1 sep3", "0->2", "0->99 sep3", "0->2 a | x"]) {
    expect(parseCell(line), line).toBeUndefined();
  }
});

test("a node stands right of all that it reads, and the output right of everything", () => {
  const cell = parseCell("0->2 sep3 | 1->2 max3 | 0->3 conv3 | 1->3 skip | 3->4 sep5 | 2->4 skip");
  const graph = layOut(cell!);
  for (const edge of graph.edges) expect(graph.nodes[edge.from]!.x).toBeLessThan(graph.nodes[edge.to]!.x);
  const places = graph.nodes.map((node) => `${node.x},${node.y}`);
  expect(new Set(places).size).toBe(places.length);
  expect(graph.nodes.at(-1)!.kind).toBe("output");
});
