/**
 * `npm start`: the local server in the foreground. Standard output carries only
 * what a person or a program asked for; everything else goes to standard error.
 */
import { enableCompileCache } from "node:module";
import { join, relative } from "node:path";
import { readArguments, USAGE, type StartOptions } from "./server/arguments.ts";
import { Refusal } from "./server/refusal.ts";
import type { Server } from "./server/serve.ts";

const STOP_SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

function say(line: string): void {
  process.stderr.write(`drover: ${line}\n`);
}

function announce(server: Server, options: StartOptions): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ url: server.url, token: server.token, data: server.data })}\n`);
    return;
  }
  const tokenFile = relative(process.cwd(), server.tokenPath);
  process.stdout.write(
    [
      "",
      `  Drover is ready at ${server.url}`,
      "",
      `  data   ${relative(process.cwd(), server.data) || "."}`,
      `  token  ${tokenFile}`,
      `  try    curl -H "Authorization: Bearer $(cat ${tokenFile})" ${server.url}/v1/goals`,
      "",
      "  Stop it with Ctrl+C; the next start comes back with everything.",
      "",
      "",
    ].join("\n"),
  );
}

function fail(error: unknown): never {
  if (error instanceof Refusal) {
    say(error.message);
    process.exit(error.exitCode);
  }
  say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}

async function main(): Promise<void> {
  const options = readArguments(process.argv.slice(2));
  if (options.help) return void process.stdout.write(USAGE);

  enableCompileCache(join(import.meta.dirname, "../../node_modules/.cache/drover/code"));
  const starting = import("./server/serve.ts").then(({ serve }) => serve({ ...options, say, onGiveUp: () => void end(1) }));
  let ending = false;
  const end = async (code: number): Promise<never> => {
    // A second signal doesn't wait; the lock and the data survive that.
    if (ending) process.exit(code);
    ending = true;
    await starting.then((server) => server.close()).catch(() => {});
    process.exit(code);
  };
  for (const name of STOP_SIGNALS) process.on(name, () => void end(0));
  // Started by another program, it doesn't outlive it.
  process.once("disconnect", () => void end(0));
  const server = await starting;
  if (!ending) announce(server, options);
}

await main().catch(fail);
