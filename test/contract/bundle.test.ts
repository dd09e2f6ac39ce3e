/**
 * The Worker as `wrangler deploy` would send it: it bundles without a warning
 * and stays small, because its size is part of every cold start.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";

const GZIP_BYTES_MAX = 164 * 1024;
/** The engine of functions; it is compiled when it is uploaded, not when it starts. */
const WASM_GZIP_BYTES_MAX = 320 * 1024;
const WRANGLER = "node_modules/wrangler/bin/wrangler.js";

const folder = mkdtempSync(join(tmpdir(), "drover-bundle-"));
let output = "";
let exitCode: number | null = null;

beforeAll(() => {
  // Not what the tests set: a deployment finds its secrets on the platform.
  const { ROOT_TOKEN: _, ...environment } = process.env;
  const command = [WRANGLER, "deploy", "--dry-run", "--outdir", folder];
  const run = spawnSync(process.execPath, command, { encoding: "utf8", env: { ...environment, NO_COLOR: "1", CI: "true" } });
  output = run.stdout + run.stderr;
  exitCode = run.status;
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("wrangler deploy --dry-run passes without a warning", () => {
  expect({ exitCode, output }).toMatchObject({ exitCode: 0 });
  expect(output).not.toMatch(/warning|error|✘|▲/i);
});

/** Of all files with such a name, gzipped, in bytes. */
function gzippedSize(kind: string, name: RegExp, max: number): number {
  const files = readdirSync(folder).filter((file) => name.test(file));
  expect(files.length, output).toBeGreaterThan(0);
  const sizes = files.map((file) => gzipSync(readFileSync(join(folder, file)), { level: 9 }).byteLength);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  process.stdout.write(`bundle: ${(bytes / 1024).toFixed(1)} KB of ${max / 1024} KB gzipped, ${kind}\n`);
  return bytes;
}

test("the Worker's JavaScript is at most 164 KB, gzipped", () => {
  expect(gzippedSize("JavaScript", /\.m?js$/, GZIP_BYTES_MAX)).toBeLessThanOrEqual(GZIP_BYTES_MAX);
});

test("its WebAssembly is at most 320 KB, gzipped", () => {
  expect(gzippedSize("WebAssembly", /\.wasm$/, WASM_GZIP_BYTES_MAX)).toBeLessThanOrEqual(WASM_GZIP_BYTES_MAX);
});
