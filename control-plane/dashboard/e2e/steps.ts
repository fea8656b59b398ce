// What the tests have in common.
import { expect, type Locator, type Page } from "@playwright/test";
import { picture, SCENE } from "./scene";

/** Gathers what a browser complains of; call the answer to see that it was nothing. */
export function complaints(page: Page): () => void {
  const seen: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") seen.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => seen.push(`${page.url()}: ${error.message}`));
  return () => expect(seen).toEqual([]);
}

type Cookies = Parameters<ReturnType<Page["context"]>["addCookies"]>[0];

/** Sessions of users: a server lets nobody log in again and again. */
const sessions = new Map<string, Cookies>();

/** After a log-out the session is worth nothing. */
export function forget(user = SCENE.user): void {
  sessions.delete(user);
}

/** Logs in, or goes on with an earlier session of this user. */
export async function logIn(page: Page, user = SCENE.user, password = SCENE.password): Promise<void> {
  const known = sessions.get(user);
  if (known !== undefined) {
    await page.context().addCookies(known);
    await page.addInitScript(() => localStorage.setItem("edgewright.session", "1"));
    await page.goto("/");
    await expect(page.getByRole("heading", { name: "Fleet", level: 1 })).toBeVisible();
    return;
  }
  await page.goto("/");
  await page.getByLabel("User").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.getByRole("heading", { name: "Fleet", level: 1 })).toBeVisible();
  sessions.set(user, await page.context().cookies());
}

/** An entry of the navigation. */
export function menu(page: Page, name: string | RegExp): Locator {
  return page.getByRole("navigation", { name: "Main" }).getByRole("link", { name, exact: true });
}

const MODES = {
  light: { width: 1360, height: 860, theme: "light" },
  dark: { width: 1360, height: 860, theme: "dark" },
  phone: { width: 390, height: 844, theme: "light" },
  "phone-dark": { width: 390, height: 844, theme: "dark" },
} as const;

/** Keeps a picture of each view in both themes and at the width of a phone, where nothing may stand out at the side. */
export async function pictures(page: Page, views: Record<string, string>): Promise<void> {
  for (const [mode, { width, height, theme }] of Object.entries(MODES)) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: theme });
    for (const [name, path] of Object.entries(views)) {
      await page.goto(path);
      await expect(page.getByRole("heading", { level: 1 })).toBeVisible();
      await expect(page.getByRole("status", { name: /^Loading/ })).toHaveCount(0);
      await page.screenshot({ path: picture(`${name}-${mode}`), fullPage: true });
      const beyond = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(beyond, `${name} at ${width} px`).toBeLessThanOrEqual(0);
    }
  }
}
