/** The flags of `npm start`. A flag it does not know is refused, never ignored. */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Refusal } from "./refusal.ts";

export interface StartOptions {
  readonly port: number;
  readonly host: string;
  readonly data: string;
  /** Executors in processes of their own. */
  readonly executors: number;
  readonly json: boolean;
  readonly help: boolean;
}

export const USAGE = `Drover, the local server

  npm start -- [flags]

  --port N      port to listen on; 0 picks a free one (default 8787)
  --host HOST   address to listen on (default 127.0.0.1)
  --data DIR    folder that keeps everything (default .drover)
  --executors N  processes in which calls are made and functions run; 0 does it in
                the server's own (default: one for each core, up to 4)
  --json        print one line of JSON, {"url", "token", "data"}, when ready
  --help        print this
`;

const USAGE_EXIT_CODE = 2;
const PORT_MAX = 65_535;
/** A laptop has other things to do with its memory. */
const EXECUTORS_DEFAULT_MAX = 4;
const EXECUTORS_MAX = 64;

/** With one core a second process gains nothing. */
export function executorsFor(cores: number): number {
  return cores === 1 ? 0 : Math.min(cores, EXECUTORS_DEFAULT_MAX);
}

function refuse(message: string): never {
  throw new Refusal(`${message}. See npm start -- --help.`, USAGE_EXIT_CODE);
}

function parseFlags(args: readonly string[]): ReturnType<typeof parse> {
  try {
    return parse(args);
  } catch (error) {
    return refuse((error as Error).message.split(/[.\n]/)[0] ?? "bad flags");
  }
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    strict: true,
    allowPositionals: false,
    options: {
      port: { type: "string", default: "8787" },
      host: { type: "string", default: "127.0.0.1" },
      data: { type: "string", default: ".drover" },
      executors: { type: "string", default: String(executorsFor(availableParallelism())) },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  }).values;
}

/** Reads the flags, or throws a `Refusal` with exit code 2. */
export function readArguments(args: readonly string[]): StartOptions {
  const { port, host, data, executors, json, help } = parseFlags(args);
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) > PORT_MAX) refuse(`--port takes a number from 0 to ${PORT_MAX}, not "${port}"`);
  if (!/^[A-Za-z0-9.:_-]+$/.test(host)) refuse(`--host takes a host name or an address, not "${host}"`);
  if (data === "") refuse("--data takes the path of a folder");
  if (!/^[0-9]{1,2}$/.test(executors) || Number(executors) > EXECUTORS_MAX) {
    refuse(`--executors takes a number from 0 to ${EXECUTORS_MAX}, not "${executors}"`);
  }
  return { port: Number(port), host, data, executors: Number(executors), json, help };
}
