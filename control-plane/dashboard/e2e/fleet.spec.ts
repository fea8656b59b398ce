// A fleet of many devices: finding one, roles, the keyboard, the first view.
import { expect, test, type Page } from "@playwright/test";
import { picture, SCENE } from "./scene";
import { complaints, forget, logIn, menu, pictures } from "./steps";

const NEEDLE = SCENE.needle ?? "cam-07421";
const DEVICES = SCENE.devices ?? 10_000;
/** A browser holds no more rows than it shows, and some around them. */
const ROWS_MAX = 120;
const FIRST_VIEW_MS = 1000;

test("a wrong password is answered with the server's own words", async ({ page }) => {
  await page.goto("/devices");
  await page.getByLabel("User").fill(SCENE.user);
  await page.getByLabel("Password").fill("wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.getByRole("alert")).toContainText(/\w+/);
  await page.screenshot({ path: picture("login-refused") });
  await page.getByLabel("Password").fill(SCENE.password);
  await page.getByRole("button", { name: "Log in" }).click();
  // The view that was asked for is the one that comes.
  await expect(page.getByRole("heading", { name: "Devices", level: 1 })).toBeVisible();
});

test("a device is found among ten thousand", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await menu(page, "Devices").click();
  const rows = page.getByRole("region", { name: "Devices" }).locator("tbody tr:not(.pad)");
  await expect(rows.first()).toBeVisible();
  await expect(page.getByText(new RegExp(`${String(DEVICES).replace(/(\d)(?=(\d{3})+$)/g, "$1\\s")} devices`))).toBeVisible();

  // Further down there are others, and the rows from above are gone.
  const first = await rows.first().innerText();
  const list = page.getByRole("region", { name: "Devices" });
  for (let screen = 0; screen < 12; screen += 1) {
    await list.evaluate((element) => element.scrollBy(0, element.clientHeight * 3));
    await page.waitForTimeout(60);
  }
  await expect.poll(() => rows.first().innerText()).not.toBe(first);
  expect(await rows.count()).toBeLessThan(ROWS_MAX);

  await page.getByLabel("Search").fill(NEEDLE);
  await expect(rows).toHaveCount(1);
  await expect(page).toHaveURL(new RegExp(`search=${NEEDLE}`));
  await page.screenshot({ path: picture("device-found") });
  await page.getByRole("link", { name: NEEDLE }).click();
  await expect(page.getByRole("heading", { name: NEEDLE, level: 1 })).toBeVisible();
  await page.goBack();
  await expect(page.getByLabel("Search")).toHaveValue(NEEDLE);
  await expect(rows).toHaveCount(1);

  await page.getByLabel("Search").fill("no-such-device");
  await expect(page.getByText("No device matches")).toBeVisible();
  await page.getByRole("link", { name: "Show all devices" }).click();
  await expect(rows.first()).toBeVisible();
  quiet();
});

test("the first view is there within a second", async ({ page }) => {
  await logIn(page);
  const times: number[] = [];
  for (let turn = 0; turn < 5; turn += 1) {
    await page.goto("/");
    await page.getByText("devices online").waitFor();
    times.push(await page.evaluate(() => performance.now()));
  }
  expect(Math.min(...times), `of ${times.map(Math.round).join(", ")} ms`).toBeLessThan(FIRST_VIEW_MS);
});

test("everything is reached by the keyboard", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await page.goto("/");
  await expect(page.getByText("devices online")).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  const devices = menu(page, "Devices");
  await devices.focus();
  const outline = await devices.evaluate((element) => getComputedStyle(element).outlineStyle);
  expect(outline).not.toBe("none");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "Devices", level: 1 })).toBeVisible();
  // Whoever does not see the page is led to what is new.
  await expect(page.locator("main")).toBeFocused();
  quiet();
});

test("the theme follows the system until one is chosen", async ({ page }) => {
  await page.emulateMedia({ colorScheme: "dark" });
  await logIn(page);
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await page.getByRole("button", { name: "Light" }).click();
  expect(await background()).not.toBe(dark);
  await page.reload();
  await expect(page.getByRole("button", { name: "Dark" })).toBeVisible();
  expect(await background()).not.toBe(dark);
});

test("a viewer looks and changes nothing", async ({ page, browser }) => {
  const password = "looking-is-all-that-i-do-1";
  await logIn(page);
  await menu(page, "Users and tokens").click();
  await page.getByRole("button", { name: "New user" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("looker");
  await dialog.getByLabel("Role").selectOption("viewer");
  await dialog.getByLabel("Password").fill(password);
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(page.getByRole("rowheader", { name: "looker" })).toBeVisible();

  const other = await browser.newPage({ ignoreHTTPSErrors: true, baseURL: SCENE.url });
  await changesNothing(other, password);
  await other.close();
});

async function changesNothing(page: Page, password: string): Promise<void> {
  const quiet = complaints(page);
  await logIn(page, "looker", password);
  await expect(menu(page, "Users and tokens")).toHaveCount(0);
  await page.goto(`/devices/${NEEDLE}`);
  const revoke = page.getByRole("button", { name: "Revoke" });
  await expect(revoke).toBeDisabled();
  await expect(revoke).toHaveAttribute("title", /role admin/);
  await expect(page.getByRole("button", { name: "Edit labels" })).toBeDisabled();
  await page.getByRole("button", { name: "Log out" }).click();
  await expect(page.getByRole("button", { name: "Log in" })).toBeVisible();
  forget("looker");
  await page.reload();
  await expect(page.getByRole("button", { name: "Log in" })).toBeVisible();
  quiet();
}

test("a token is shown once", async ({ page }) => {
  await logIn(page);
  await page.goto("/access");
  await page.getByRole("button", { name: "New token" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel(/Name/).fill("nightly");
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(page.getByText("it is not shown again")).toBeVisible();
  await expect(page.getByRole("rowheader", { name: "nightly" })).toBeVisible();
  await page.getByRole("button", { name: "Done" }).click();
  await expect(page.getByText("it is not shown again")).toHaveCount(0);
});

test("all views of a large fleet are pictured", async ({ page }) => {
  const quiet = complaints(page);
  await logIn(page);
  await pictures(page, { fleet: "/", devices: "/devices", device: `/devices/${NEEDLE}`, access: "/access", audit: "/audit" });
  quiet();
});

test("without the stream the page asks by itself", async ({ page }) => {
  await page.route("**/api/v1/stream*", (route) => route.abort());
  await logIn(page);
  await expect(page.getByText("asking every 5 s")).toBeVisible();
  const asked = page.waitForResponse((response) => response.url().endsWith("/api/v1/overview"), { timeout: 10_000 });
  expect((await asked).ok()).toBe(true);
  // Seen again, it listens again.
  await page.unroute("**/api/v1/stream*");
  await page.reload();
  await expect(page.getByText("live", { exact: true })).toBeVisible();
});
