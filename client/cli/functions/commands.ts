/** What `functions put`, `list`, `delete` and `invoke` do, and what they print. */
import { readFileSync } from "node:fs";
import { ENGINES, type FunctionVersion } from "../../../shared/protocol/function.ts";
import { Refusal } from "../server/refusal.ts";
import type { FunctionsCommand, Verb } from "./arguments.ts";
import { bundleFunction } from "./bundle.ts";
import { findServer, send, type Server } from "./server.ts";

const JSON_TYPE = "application/json";
const VERSION_CHARS_SHOWN = 12;
const STDIN_FD = 0;

interface Invoked {
  readonly output: unknown;
  readonly logs: readonly { readonly level: string; readonly text: string }[];
  readonly cpuMs: number;
}

type Command = (server: Server, command: FunctionsCommand) => Promise<string>;

const shownBytes = (bytes: number): string =>
  bytes < 1_000_000 ? `${(bytes / 1_000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(2)} MB`;
const pathOf = (name: string): string => `/v1/functions/${encodeURIComponent(name)}`;
const line = (value: unknown): string => `${JSON.stringify(value)}\n`;

/** One row of text each, in columns. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

function described(made: FunctionVersion, isNew: boolean): string {
  const { name, version, engine, bundleBytes, snapshotBytes, initMs } = made;
  const snapshot = engine === ENGINES[0] ? [["snapshot", `${shownBytes(snapshotBytes)}, initialised in ${initMs} ms`]] : [];
  return table([
    ["function", `${name}  ${isNew ? "new version" : "this version was there already"}`],
    ["version", version],
    ["engine", engine],
    ["bundle", shownBytes(bundleBytes)],
    ...snapshot,
  ]);
}

async function put(server: Server, { operands, settings, json }: FunctionsCommand): Promise<string> {
  const [name, file] = operands as [string, string];
  const bundle = await bundleFunction(file);
  const query = new URLSearchParams(settings).toString();
  const path = `${pathOf(name)}${query === "" ? "" : `?${query}`}`;
  const { status, value } = await send(server, "PUT", path, "text/javascript", bundle);
  return json ? line(value) : described(value as FunctionVersion, status === 201);
}

async function list(server: Server, { json }: FunctionsCommand): Promise<string> {
  const { value } = await send(server, "GET", "/v1/functions", JSON_TYPE);
  if (json) return line(value);
  const { items } = value as { readonly items: readonly FunctionVersion[] };
  if (items.length === 0) return "There are no functions yet.\n";
  const rows = items.map(({ name, version, engine, bundleBytes, snapshotBytes }) => [
    name,
    version.slice(0, VERSION_CHARS_SHOWN),
    engine,
    shownBytes(bundleBytes),
    engine === ENGINES[0] ? shownBytes(snapshotBytes) : "",
  ]);
  return table([["NAME", "VERSION", "ENGINE", "BUNDLE", "SNAPSHOT"], ...rows]);
}

async function remove(server: Server, { operands, json }: FunctionsCommand): Promise<string> {
  const [name] = operands as [string];
  await send(server, "DELETE", pathOf(name), JSON_TYPE);
  return json ? line({ name, deleted: true }) : `${name} is deleted.\n`;
}

function inputOf(text: string | undefined): unknown {
  if (text === undefined) return undefined;
  const json = text === "-" ? readFileSync(STDIN_FD, "utf8") : text;
  try {
    return JSON.parse(json) as unknown;
  } catch (error) {
    throw new Refusal(`the input is not JSON (${(error as Error).message})`);
  }
}

/** Standard output has the output alone; what the function logged goes to standard error. */
async function invoke(server: Server, { operands, timeoutMs, json }: FunctionsCommand): Promise<string> {
  const [name, text] = operands as [string, string | undefined];
  const body = JSON.stringify({ input: inputOf(text), timeoutMs });
  const { value } = await send(server, "POST", `${pathOf(name)}/invoke`, JSON_TYPE, body);
  if (json) return line(value);
  const { output = null, logs } = value as Invoked;
  for (const { level, text: said } of logs) process.stderr.write(`${level}: ${said}\n`);
  return `${JSON.stringify(output, null, 2)}\n`;
}

const COMMANDS: Readonly<Record<Verb, Command>> = { put, list, delete: remove, invoke };

/** What is to be printed. Throws a `Refusal` where the user can do something about it. */
export function runCommand(command: FunctionsCommand): Promise<string> {
  return COMMANDS[command.verb](findServer(command), command);
}
