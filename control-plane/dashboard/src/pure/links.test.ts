import { expect, test } from "vitest";
import { viewOf } from "./links";

test("a resource of the API leads to its view, and nothing leads elsewhere", () => {
  expect(viewOf("/api/v1/versions/mnist@v1.0")).toBe("/models/mnist@v1.0");
  expect(viewOf("/rollouts/0198")).toBe("/rollouts/0198");
  for (const link of [null, undefined, "", "https://elsewhere.example/rollouts/1", "//elsewhere/rollouts", "/users/x"]) {
    expect(viewOf(link), String(link)).toBeUndefined();
  }
});
