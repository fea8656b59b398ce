import { defineConfig } from "@playwright/test";
import { CHROMIUM, SCENE } from "./e2e/scene";

const isRoot = process.getuid?.() === 0;

export default defineConfig({
  testDir: "e2e",
  outputDir: "test-results",
  workers: 1,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 15_000 },
  reporter: "list",
  use: {
    baseURL: SCENE.url,
    ignoreHTTPSErrors: true,
    trace: "off",
    screenshot: "off",
    launchOptions: { executablePath: CHROMIUM, args: ["--disable-dev-shm-usage", ...(isRoot ? ["--no-sandbox"] : [])] },
  },
});
