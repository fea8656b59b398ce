import { expect, test } from "vitest";
import { asQuery, isFiltered, readFilters, writeFilters } from "./filters";

test("filters survive the way through the address", () => {
  const filters = readFilters(new URLSearchParams("search=cam&online=false&state=behind&label=ring%3Dlate&label=site%3Da%3Db"));
  expect(readFilters(writeFilters(filters))).toEqual(filters);
  expect(asQuery(filters)).toEqual({ search: "cam", online: false, state: "behind", label: ["ring=late", "site=a=b"] });
});

test("what an address says wrongly is no filter", () => {
  const filters = readFilters(new URLSearchParams("online=maybe&state=odd&label=nothing&label==x"));
  expect(isFiltered(filters)).toBe(false);
});
