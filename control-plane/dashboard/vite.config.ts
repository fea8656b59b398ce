import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// The server that `npm run dev` asks: a control plane, or the mock of the tests.
const server = process.env["EDGEWRIGHT_SERVER"] ?? "https://127.0.0.1:8443";

const OUT = process.env["EDGEWRIGHT_DASHBOARD_OUT"] ?? "dist";
/** What becomes much smaller; anything below is sent as it is. */
const COMPRESSED = new Set([".js", ".css", ".html", ".svg"]);
const COMPRESSED_BYTES_MIN = 1024;

/** Puts `FILE.br` beside each file, so that the server compresses nothing. */
function brotli(): Plugin {
  return {
    name: "brotli",
    apply: "build",
    closeBundle() {
      for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !COMPRESSED.has(extname(entry.name))) continue;
        const path = join(entry.parentPath, entry.name);
        const bytes = readFileSync(path);
        if (bytes.length < COMPRESSED_BYTES_MIN) continue;
        const params = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
        writeFileSync(`${path}.br`, brotliCompressSync(bytes, { params }));
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), brotli()],
  build: {
    target: "es2022",
    outDir: OUT,
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
