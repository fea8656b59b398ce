// A model's life: a rollout that goes through its waves until a gate stops it, and where its version came from.
import { expect, test } from "@playwright/test";
import { picture, SCENE } from "./scene";
import { complaints, logIn, menu, pictures } from "./steps";

const isMock = SCENE.rollout === undefined;
const ROLLOUT = SCENE.rollout ?? "0198c0de-0000-7000-8000-000000000901";
const VERSION = SCENE.version ?? "mnist@v1.1";
const PARENT = SCENE.parent ?? "mnist@v1.0";
/** Impressions without a click, far below any limit. */
const IMPRESSIONS = 120;
const STOPPED_MS = 90_000;

test("a rollout is watched through its waves until a gate stops it", async ({ page, request }) => {
  const quiet = complaints(page);
  if (isMock) await request.get("/mock/restart");
  await logIn(page);
  await menu(page, "Rollouts").click();
  await page.locator(`a[href="/rollouts/${ROLLOUT}"]`).click();
  const waves = page.getByTestId("waves").locator("li");
  await expect(waves.nth(0)).toHaveAttribute("data-standing", "through", { timeout: STOPPED_MS });
  await expect(waves.nth(1)).toHaveAttribute("data-standing", /open|through/, { timeout: STOPPED_MS });
  const gate = page.getByTestId("gates").locator("li").first();
  await expect(gate).toContainText("needs more evidence");
  await page.screenshot({ path: picture("rollout-waits"), fullPage: true });

  // Why the last device waits, in the server's words.
  const members = page.getByRole("region", { name: "Devices of the rollout" });
  await page.getByLabel("State").selectOption("pending");
  await members.getByRole("button", { name: /^Why is/ }).first().click();
  await expect(page.getByTestId("why")).toContainText("waits for wave 3");
  await page.screenshot({ path: picture("rollout-why"), fullPage: true });

  // Nobody clicks: the gate has seen enough, and the page says so by itself.
  for (const [device, address] of (SCENE.feedback ?? []).entries()) {
    for (let nth = 0; nth < IMPRESSIONS; nth += 1) {
      const told = await request.post(address, { data: { kind: "impression", request_id: `seen-${device}-${nth}` } });
      expect(told.ok(), await told.text()).toBe(true);
    }
  }
  await expect(page.getByTestId("reason")).toContainText("ctr", { timeout: STOPPED_MS });
  await expect(page.locator(".head").getByText("stopped", { exact: true })).toBeVisible({ timeout: STOPPED_MS });
  await expect(gate).toContainText("stops");
  await expect(page.getByRole("button", { name: "Pause" })).toHaveCount(0);
  await page.screenshot({ path: picture("rollout-stopped"), fullPage: true });
  quiet();
});

test("a version's lineage leads to the data", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await menu(page, "Versions").click();
  await page.getByRole("link", { name: VERSION, exact: true }).click();
  const lineage = page.getByTestId("lineage");
  for (const step of ["Signing", "Compression", "Training"]) {
    await expect(lineage.getByText(step, { exact: true }).first()).toBeVisible();
  }
  await lineage.getByRole("link", { name: PARENT }).first().click();
  await expect(page.getByRole("heading", { name: PARENT, level: 1 })).toBeVisible();
  for (const step of ["Search", "Data"]) await expect(lineage.getByText(step, { exact: true })).toBeVisible();
  await expect(page.getByRole("img", { name: /^Cell:/ })).toBeVisible();
  await page.screenshot({ path: picture("lineage"), fullPage: true });
  await lineage.getByRole("link", { name: /^job / }).first().click();
  await expect(page.getByRole("heading", { name: /^(Search|Training) of/, level: 1 })).toBeVisible();
  quiet();
});

test("the incident of a stopped rollout is acknowledged and resolved", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await menu(page, /^Incidents/).click();
  await page.getByRole("link", { name: /was stopped/ }).first().click({ timeout: STOPPED_MS });
  await expect(page.getByRole("heading", { name: /was stopped/, level: 1 })).toBeVisible();
  await page.getByRole("button", { name: "Acknowledge" }).click();
  await expect(page.locator(".head").getByText("acknowledged")).toBeVisible();
  await page.getByRole("button", { name: "Resolve" }).click();
  await expect(page.locator(".head").getByText("resolved")).toBeVisible();
  quiet();
});

test("all views of a model's life are pictured", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await pictures(page, {
    overview: "/",
    rollouts: "/rollouts",
    rollout: `/rollouts/${ROLLOUT}`,
    versions: "/models",
    version: `/models/${encodeURIComponent(PARENT)}`,
    jobs: "/jobs",
    datasets: "/datasets",
    feedback: "/feedback",
    incidents: "/incidents?all=true",
  });
  quiet();
});
