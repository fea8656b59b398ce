import { expect, test } from "vitest";
import { readLabels, readWaves } from "./forms";
import { knownDetails } from "./lineage";

test("waves are counts, shares and labels", () => {
  expect(readWaves("1, 10%, ring=late, 100 %")).toEqual({
    waves: [{ count: 1 }, { percent: 10 }, { label: { key: "ring", value: "late" } }, { percent: 100 }],
  });
});

test("the part that is no wave is named", () => {
  expect(readWaves("1, ten")).toEqual({ wrong: "ten" });
  expect(readWaves("101%")).toEqual({ wrong: "101%" });
  expect(readWaves("0")).toEqual({ wrong: "0" });
  expect(readWaves("")).toEqual({ wrong: "" });
});

test("labels are words of key and value, whose value may hold a sign more", () => {
  expect(readLabels("ring=canary, site=a=b")).toEqual({ ring: "canary", site: "a=b" });
  expect(readLabels("  ")).toEqual({});
  expect(readLabels("ring")).toBeUndefined();
  expect(readLabels("=x")).toBeUndefined();
});

test("a step says in a line what fits one", () => {
  const said = knownDetails({ accuracy: 0.98765, shape: [1, 28, 28], budget: { cells: 3 }, board: "pi", kept: true });
  expect(said).toEqual([
    ["accuracy", "0.9877"],
    ["shape", "1×28×28"],
    ["board", "pi"],
    ["kept", "yes"],
  ]);
});
