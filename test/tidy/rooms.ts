/**
 * Who may import whom, as an allow-list a room. What is not listed is a fault,
 * type imports and dynamic ones included: rooms talk through shared/rpc.ts, and
 * workers/index.ts is the only file that crosses.
 */
import type { Source } from "./source.ts";

interface Room {
  readonly files: RegExp;
  /** `$1` stands for what the first group of `files` matched. */
  readonly may: readonly string[];
}

const SHARED = "shared/";
const ANYTHING = "";

/** The first room whose pattern fits is the file's room. A name ending in `/` allows everything below it. */
export const ROOMS: readonly Room[] = [
  { files: /^shared\/protocol\//, may: [SHARED, "valibot"] },
  { files: /^shared\//, may: [SHARED] },
  { files: /^durable-objects\/kit\//, may: ["durable-objects/kit/", SHARED, "cloudflare:"] },
  {
    files: /^durable-objects\/([a-z-]+)\/core\//,
    may: [
      "durable-objects/$1/core/",
      "!shared/rpc.ts",
      "!shared/rpc-batch.ts",
      "!shared/rpc-relatives.ts",
      "!shared/rpc-functions.ts",
      "!shared/rpc-flight.ts",
      "!shared/rpc-processes.ts",
      SHARED,
    ],
  },
  {
    files: /^durable-objects\/(executor)\//,
    may: [
      "durable-objects/$1/",
      "workers/executor/run-batch.ts",
      "workers/executor/functions/",
      "workers/executor/host/hosts.ts",
      "durable-objects/kit/",
      SHARED,
      "cloudflare:",
    ],
  },
  { files: /^durable-objects\/([a-z-]+)\//, may: ["durable-objects/$1/", "durable-objects/kit/", SHARED, "cloudflare:"] },
  { files: /^workers\/index\.ts$/, may: ["workers/", "durable-objects/", SHARED, "cloudflare:workers"] },
  {
    files: /^workers\/local\.ts$/,
    may: ["workers/index.ts", "workers/edge/app.ts", "workers/processes/entrypoint.ts", "workers/processes/elsewhere.ts"],
  },
  {
    files: /^workers\/processes\//,
    may: ["workers/processes/", "workers/executor/", "workers/sandbox/", "workers/kit/", SHARED, "cloudflare:"],
  },
  { files: /^workers\/kit\//, may: ["workers/kit/", SHARED] },
  { files: /^workers\/sandbox\//, may: ["workers/sandbox/", "workers/kit/", SHARED, "cloudflare:", "@jridgewell/trace-mapping"] },
  { files: /^workers\/edge\//, may: ["workers/edge/", "workers/sandbox/", "workers/kit/", SHARED, "hono", "hono/", "valibot", "jose"] },
  { files: /^workers\/executor\//, may: ["workers/executor/", "workers/sandbox/", "workers/kit/", SHARED, "cloudflare:"] },
  { files: /^client\//, may: ["client/", SHARED, "node:", "miniflare", "wrangler", "esbuild", "workerd"] },
  { files: /^bench\/sandbox\/worker\.ts$/, may: ["workers/sandbox/", "workers/kit/", SHARED] },
  { files: /^bench\//, may: ["bench/", "client/", SHARED, "node:", "cloudflare:workers", "esbuild"] },
  { files: /^examples\//, may: ["examples/", "client/", SHARED, "node:", "drover/functions"] },
  { files: /^scripts\//, may: ["scripts/", "node:"] },
  { files: /^test\//, may: [ANYTHING] },
  { files: /^[a-z.-]+\.ts$/, may: [ANYTHING] },
];

const fits = (target: string, allowed: string): boolean =>
  allowed === ANYTHING || target === allowed || (/[/:]$/.test(allowed) && target.startsWith(allowed));

/** Whether the file at `path` may import `target`, a path from the root or a package. Null: the path has no room. */
export function mayImport(path: string, target: string): boolean | null {
  const room = ROOMS.find(({ files }) => files.test(path));
  if (room === undefined) return null;
  const own = room.files.exec(path)?.[1] ?? "";
  for (const pattern of room.may) {
    const allowed = pattern.replace("$1", own);
    if (allowed.startsWith("!") && fits(target, allowed.slice(1))) return false;
    if (fits(target, allowed)) return true;
  }
  return false;
}

export function importFaults(source: Source): string[] {
  const faults: string[] = [];
  if (mayImport(source.path, "shared/") === null) faults.push(`${source.path} is in no room that ROOMS knows`);
  for (const { target, line } of source.imports) {
    const at = `${source.path}:${line}`;
    if (target === null && !/^(?:test|client|bench)\//.test(source.path)) faults.push(`${at} imports a computed name; name the module`);
    if (target !== null && mayImport(source.path, target) === false) faults.push(`${at} may not import ${target}`);
  }
  return faults;
}
