/**
 * Keeps the repository in shape: import matrix, sizes, headers, purity of the
 * cores, conventions, one runtime, nothing foreign. Each rule is shown to bite
 * on a planted fault beside it.
 */
import { globSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { importFaults, mayImport } from "./tidy/rooms.ts";
import { conventions, fileLength, foreignReferences, functionLength, header, lockFaults, purity, RULES, type Rule } from "./tidy/rules.ts";
import { parseSource } from "./tidy/source.ts";

const FOLDERS = "{workers,durable-objects,shared,client,bench,examples,test,scripts}";
const GENERATED = "env.d.ts";
const sources = globSync([`${FOLDERS}/**/*.{ts,mts,mjs,js}`, "*.ts"]).filter((path) => path !== GENERATED);
const documents = globSync(["*.md", "docs/**/*.md", "*.{json,toml}", ".ci/*", `${FOLDERS}/**/*.{html,capnp,json,toml}`]);

const read = (path: string): string => readFileSync(path, "utf8");
const faultsIn = (rule: Rule, path: string, text: string): string[] => rule(parseSource(path, text));

test("every source file keeps the rules", () => {
  expect(sources.length).toBeGreaterThan(20);
  const faults = sources.flatMap((path) => {
    const source = parseSource(path, read(path));
    return RULES.flatMap((rule) => rule(source));
  });
  expect(faults).toEqual([]);
});

test("nothing refers to one machine or to files outside the repository", () => {
  const all = [...sources, ...documents].filter((path) => path !== "package-lock.json" && path !== "test/tidy.test.ts");
  const files = new Set([...sources, ...documents]);
  expect(all.flatMap((path) => foreignReferences(path, read(path), files))).toEqual([]);
});

test("one workerd is locked, and the lock file is complete", () => {
  expect(lockFaults(read("package-lock.json"))).toEqual([]);
});

test("no two test files count visits under one name: they run side by side on one upstream", () => {
  const ownerOf = new Map<string, string>();
  const shared: string[] = [];
  for (const path of sources.filter((file) => file.startsWith("test/workerd/"))) {
    for (const [, name] of read(path).matchAll(/(?:counts|calls)Of\("([^"]+)"\)/g)) {
      const owner = ownerOf.get(name!) ?? path;
      ownerOf.set(name!, owner);
      if (owner !== path) shared.push(`${name} of ${owner} is counted in ${path} too`);
    }
  }
  expect(ownerOf.size).toBeGreaterThan(10);
  expect(shared).toEqual([]);
});

const GOAL = "durable-objects/goal/object.ts";
const CORE = "durable-objects/goal/core/step.ts";

test.for([
  ["shared/ids.ts", 'import { Goal } from "../durable-objects/goal/object.ts";'],
  ["shared/ids.ts", 'import * as v from "valibot";'],
  ["shared/protocol/task.ts", 'import { Hono } from "hono";'],
  [CORE, 'import type { GoalRpc } from "../../../shared/rpc.ts";'],
  [CORE, 'import { Store } from "../store.ts";'],
  [CORE, 'import { fold } from "../../tenant/core/fold.ts";'],
  [CORE, 'import { exec } from "../../kit/sql.ts";'],
  [CORE, 'type T = import("../store.ts").Store;'],
  [GOAL, 'import type { Tenant } from "../tenant/object.ts";'],
  [GOAL, 'const x = () => import("../../workers/executor/run-batch.ts");'],
  [GOAL, 'export { app } from "../../workers/edge/app.ts";'],
  [GOAL, "const x = (name: string) => import(name);"],
  ["durable-objects/executor/object.ts", 'import { run } from "../../workers/executor/executor.ts";'],
  ["durable-objects/kit/sql.ts", 'import { Goal } from "../goal/object.ts";'],
  ["workers/edge/app.ts", 'import { run } from "../executor/run-batch.ts";'],
  ["workers/executor/executor.ts", 'import { app } from "../edge/app.ts";'],
  ["client/cli/start.ts", 'import { app } from "../../workers/edge/app.ts";'],
  ["bench/run.ts", 'import { step } from "../durable-objects/goal/core/step.ts";'],
  ["scripts/setup.mjs", 'import { Miniflare } from "miniflare";'],
  ["attic/thing.ts", "export const x = 1;"],
] as const)("the import matrix refuses, in %s: %s", ([path, text]) => {
  expect(faultsIn(importFaults, path, text)).toHaveLength(1);
});

test("the import matrix allows the way of a request", () => {
  expect(mayImport("workers/index.ts", GOAL)).toBe(true);
  expect(mayImport("durable-objects/executor/object.ts", "workers/executor/run-batch.ts")).toBe(true);
  expect(mayImport("workers/edge/app.ts", "hono/streaming")).toBe(true);
  expect(mayImport("shared/protocol/task-schema.ts", "valibot")).toBe(true);
  expect(mayImport(CORE, "shared/limits.ts")).toBe(true);
  expect(mayImport("client/cli/start.ts", "node:fs")).toBe(true);
  expect(mayImport("test/core/step.test.ts", CORE)).toBe(true);
});

test("a file of 401 lines and a function of 71 are too long", () => {
  expect(faultsIn(fileLength, CORE, "\n".repeat(399) + "export const x = 1;")).toEqual([]);
  expect(faultsIn(fileLength, CORE, "\n".repeat(400) + "export const x = 1;")).toHaveLength(1);
  const body = (lines: number): string => "\n".repeat(lines - 1);
  for (const form of [
    (b: string) => `function f() {${b}}`,
    (b: string) => `const f = () => {${b}};`,
    (b: string) => `class A { async f() {${b}} }`,
  ]) {
    expect(faultsIn(functionLength, CORE, form(body(70)))).toEqual([]);
    expect(faultsIn(functionLength, CORE, form(body(71)))).toHaveLength(1);
  }
});

test("a file without a header comment is found, a shebang before it is not minded", () => {
  expect(faultsIn(header, CORE, "export const x = 1;")).toHaveLength(1);
  expect(faultsIn(header, CORE, "/** Short. */\nexport const x = 1;")).toHaveLength(1);
  expect(faultsIn(header, "client/cli/start.ts", "#!/usr/bin/env node\n/** Starts the server, and one only. */\nexport {};")).toEqual([]);
});

test.for([
  "const x = Date.now();",
  "const x = new Date(0);",
  "const x = Math.random();",
  "const x = crypto.randomUUID();",
  'const x = fetch("/");',
  "setTimeout(f, 1);",
  "const x = performance.now();",
  "const x = process.env;",
  "console.log(1);",
  "const x = globalThis;",
  "const x = { Date };",
  "async function f() {}",
  "const f = async () => 1;",
  "class A { async f() {} }",
  "await f();",
] as const)("a core may not say: %s", (text) => {
  expect(faultsIn(purity, CORE, text).length).toBeGreaterThan(0);
  expect(faultsIn(purity, "shared/policy/x.ts", text).length).toBeGreaterThan(0);
  expect(faultsIn(purity, GOAL, text)).toEqual([]);
});

test("a core may speak of time and of processes in its own names", () => {
  expect(faultsIn(purity, CORE, 'const x = task.process; const y = { fetch: 1, Date: 2 }; const z = "crypto"; // console')).toEqual([]);
});

test.for([
  "// TO".concat("DO: later"),
  "const x = 1; // FIX".concat("ME"),
  "const x: any = 1;",
  "enum Color { red }",
  "export default 1;",
  'export * from "./state.ts";',
  "class A { private x = 1; }",
] as const)("the conventions refuse: %s", (text) => {
  expect(faultsIn(conventions, CORE, text)).toHaveLength(1);
});

test("the conventions refuse a test that is switched off, and a name in camel case", () => {
  for (const text of ["test.skip('x', f);", "describe.only('x', f);", "test.todo('x');", "it.skipIf(true)('x', f);"]) {
    expect(faultsIn(conventions, "test/core/x.test.ts", text)).toHaveLength(1);
  }
  expect(faultsIn(conventions, "shared/goalState.ts", "export const x = 1;")).toHaveLength(1);
  expect(faultsIn(conventions, "workers/index.ts", "export default {};")).toEqual([]);
});

test.for(["/work/main/x", "see /tmp/x.log", "/home/me/x", "../../shared/x", "docs/nowhere.md", "[facts](../facts.md)"])(
  "a reference to something foreign is found: %s",
  (text) => {
    expect(foreignReferences("docs/guide.md", text, new Set(["docs/guide.md"])).length).toBeGreaterThan(0);
  },
);

test("references inside the repository are fine", () => {
  const files = new Set(["README.md", "docs/guide.md"]);
  expect(
    foreignReferences("docs/guide.md", "[first](../README.md), ../shared/ids.ts, docs/guide.md, https://x.org/home/me.md", files),
  ).toEqual([]);
});

test("a second workerd and a missing platform are found in a lock file", () => {
  const lock = (paths: object): string => JSON.stringify({ packages: paths });
  expect(lockFaults(lock({ "node_modules/workerd": {} }))).toEqual([]);
  expect(lockFaults(lock({ "node_modules/workerd": {}, "node_modules/a/node_modules/workerd": {} }))).toHaveLength(1);
  expect(lockFaults(lock({}))).toHaveLength(1);
  expect(lockFaults(lock({ "node_modules/workerd": { optionalDependencies: { "@x/darwin": "1" } } }))).toHaveLength(1);
});
