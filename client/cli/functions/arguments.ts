/** The words and flags of `npm run drover`. One that it does not know is refused, never ignored. */
import { parseArgs } from "node:util";
import { ENGINES } from "../../../shared/protocol/function.ts";
import { Refusal } from "../server/refusal.ts";

export const USAGE = `Drover, functions

  npm run drover -- functions put NAME FILE [flags]      bundles a module (TypeScript or JavaScript) and puts it
  npm run drover -- functions list
  npm run drover -- functions delete NAME
  npm run drover -- functions invoke NAME [INPUT]        calls it once with JSON; - reads it from standard input

  --url URL         the server; default: DROVER_URL, or the one that serves the data folder
  --token TOKEN     default: DROVER_TOKEN, or the data folder's
  --data DIR        data folder of a local server (default .drover)
  --json            print what the server answers, as it is
  --help            print this

  put:
  --engine NAME     ${ENGINES.join(" or ")} (default ${ENGINES[0]})
  --cpu-ms N        processor time of an invocation
  --memory-mib N    memory of an invocation beyond the snapshot

  invoke:
  --timeout-ms N    the longest that it may take
`;

const VERBS = ["put", "list", "delete", "invoke"] as const;
export type Verb = (typeof VERBS)[number];

/** How many words follow the verb. */
const OPERANDS: Readonly<Record<Verb, readonly [min: number, max: number, what: string]>> = {
  put: [2, 2, "NAME FILE"],
  list: [0, 0, "nothing"],
  delete: [1, 1, "NAME"],
  invoke: [1, 2, "NAME [INPUT]"],
};
/** Flags that belong to one verb. */
const OWN_FLAGS: Readonly<Record<string, Verb>> = { engine: "put", "cpu-ms": "put", "memory-mib": "put", "timeout-ms": "invoke" };

const USAGE_EXIT_CODE = 2;

const FLAGS = {
  url: { type: "string" },
  token: { type: "string" },
  data: { type: "string", default: ".drover" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
  engine: { type: "string" },
  "cpu-ms": { type: "string" },
  "memory-mib": { type: "string" },
  "timeout-ms": { type: "string" },
} as const;

export interface FunctionsCommand {
  readonly verb: Verb;
  readonly operands: readonly string[];
  readonly url: string | undefined;
  readonly token: string | undefined;
  readonly data: string;
  readonly json: boolean;
  readonly timeoutMs: number | undefined;
  /** What the query of a PUT says. */
  readonly settings: Readonly<Record<string, string>>;
}

function refuse(message: string): never {
  throw new Refusal(`${message}. See npm run drover -- --help.`, USAGE_EXIT_CODE);
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], strict: true, allowPositionals: true, options: FLAGS });
  } catch (error) {
    return refuse((error as Error).message.split(/[.\n]/)[0] ?? "bad flags");
  }
}

function verbOf([group, verb, ...operands]: readonly string[]): { readonly verb: Verb; readonly operands: readonly string[] } {
  if (group !== "functions") refuse(group === undefined ? "say what to do" : `there is no "${group}"`);
  const known = VERBS.find((name) => name === verb);
  if (known === undefined) return refuse(`functions takes ${VERBS.join(", ")}, not "${verb ?? ""}"`);
  const [min, max, what] = OPERANDS[known];
  if (operands.length < min || operands.length > max) refuse(`functions ${known} takes ${what}`);
  return { verb: known, operands };
}

/** A whole number from 1; the server knows the bounds. */
function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text !== undefined && !/^[1-9][0-9]{0,8}$/.test(text)) refuse(`--${flag} takes a whole number, not "${text}"`);
  return text === undefined ? undefined : Number(text);
}

/** Null: help was asked for. Throws a `Refusal` with exit code 2. */
export function readCommand(args: readonly string[]): FunctionsCommand | null {
  const { values, positionals } = parsed(args);
  if (values.help) return null;
  const { verb, operands } = verbOf(positionals);
  for (const [flag, owner] of Object.entries(OWN_FLAGS)) {
    if (flag in values && owner !== verb) refuse(`--${flag} is for functions ${owner}`);
  }
  const cpuMs = numberOf("cpu-ms", values["cpu-ms"]);
  const memoryMiB = numberOf("memory-mib", values["memory-mib"]);
  const settings = Object.entries({ engine: values.engine, cpuMs, memoryMiB }).filter(([, value]) => value !== undefined);
  return {
    verb,
    operands,
    url: values.url,
    token: values.token,
    data: values.data,
    json: values.json,
    timeoutMs: numberOf("timeout-ms", values["timeout-ms"]),
    settings: Object.fromEntries(settings.map(([name, value]) => [name, String(value)])),
  };
}
