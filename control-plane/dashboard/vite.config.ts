import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The server that `npm run dev` asks: a control plane, or the mock of the tests.
const server = process.env["EDGEWRIGHT_SERVER"] ?? "https://127.0.0.1:8443";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2022",
    outDir: process.env["EDGEWRIGHT_DASHBOARD_OUT"] ?? "dist",
    emptyOutDir: true,
    // Nothing is inlined: the page's policy takes files of this server alone.
    assetsInlineLimit: 0,
    // The charts are one chunk, and it comes when a chart is shown.
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "/api": { target: server, secure: false } } },
  preview: { proxy: { "/api": { target: server, secure: false } } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
