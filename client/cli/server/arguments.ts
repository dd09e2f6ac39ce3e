/** The flags of `npm start`. A flag it does not know is refused, never ignored. */
import { parseArgs } from "node:util";
import { Refusal } from "./refusal.ts";

export interface StartOptions {
  readonly port: number;
  readonly host: string;
  readonly data: string;
  readonly json: boolean;
  readonly help: boolean;
}

export const USAGE = `Drover, the local server

  npm start -- [flags]

  --port N      port to listen on; 0 picks a free one (default 8787)
  --host HOST   address to listen on (default 127.0.0.1)
  --data DIR    folder that keeps everything (default .drover)
  --json        print one line of JSON, {"url", "token", "data"}, when ready
  --help        print this
`;

const USAGE_EXIT_CODE = 2;
const PORT_MAX = 65_535;

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
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  }).values;
}

/** Reads the flags, or throws a `Refusal` with exit code 2. */
export function readArguments(args: readonly string[]): StartOptions {
  const { port, host, data, json, help } = parseFlags(args);
  if (!/^[0-9]{1,5}$/.test(port) || Number(port) > PORT_MAX) refuse(`--port takes a number from 0 to ${PORT_MAX}, not "${port}"`);
  if (!/^[A-Za-z0-9.:_-]+$/.test(host)) refuse(`--host takes a host name or an address, not "${host}"`);
  if (data === "") refuse("--data takes the path of a folder");
  return { port: Number(port), host, data, json, help };
}
