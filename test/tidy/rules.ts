/**
 * What a reviewer should not have to look for. Each rule is a pure function
 * from a file to its faults, one sentence each.
 */
import { posix } from "node:path";
import { importFaults } from "./rooms.ts";
import type { Node, Source } from "./source.ts";

const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const HEADER_CHARS_MIN = 30;

export type Rule = (source: Source) => string[];

/** Faults of every node that `look` has something to say about. */
function nodeFaults(source: Source, look: (node: Node, parent: Node) => string | null): string[] {
  const faults: string[] = [];
  source.walk((node, parent) => {
    const fault = look(node, parent);
    if (fault !== null) faults.push(`${source.path}:${source.lineOf(node.start)} ${fault}`);
  });
  return faults;
}

export const fileLength: Rule = ({ path, text }) => {
  const lines = text.trimEnd().split("\n").length;
  return lines > FILE_LINES_MAX ? [`${path} has ${lines} lines; split it, at most ${FILE_LINES_MAX}`] : [];
};

/** Tests and benchmarks may tell a long story in one function; the product may not. */
export const functionLength: Rule = (source) => {
  if (/^(?:test|bench)\//.test(source.path)) return [];
  return nodeFaults(source, (node) => {
    if (!/^(?:FunctionDeclaration|FunctionExpression|ArrowFunctionExpression|StaticBlock)$/.test(node.type)) return null;
    const lines = source.lineOf(node.end) - source.lineOf(node.start) + 1;
    return lines > FUNCTION_LINES_MAX ? `a function has ${lines} lines; split it, at most ${FUNCTION_LINES_MAX}` : null;
  });
};

export const header: Rule = ({ path, text }) => {
  const start = text.replace(/^#!.*\n/, "");
  const comment = /^(?:\/\*[\s\S]*?\*\/|(?:\/\/.*\n)+)/.exec(start)?.[0] ?? "";
  return comment.length >= HEADER_CHARS_MIN ? [] : [`${path} begins without a header comment; say what it owns and its invariant`];
};

const IMPURE = new Set([
  "Date",
  "crypto",
  "fetch",
  "setTimeout",
  "setInterval",
  "queueMicrotask",
  "performance",
  "process",
  "console",
  "globalThis",
]);

/** Whether an identifier names a variable, and not a property of something. */
function isVariable(node: Node, parent: Node): boolean {
  if (parent.type === "MemberExpression") return parent["object"] === node || parent["computed"] === true;
  const isKey = parent["key"] === node && parent["computed"] !== true && parent["shorthand"] !== true;
  return !isKey && parent.type !== "TSQualifiedName";
}

/** Decisions depend on their arguments alone, so that the simulator can replay them. */
export const purity: Rule = (source) => {
  if (!/^shared\/|^durable-objects\/[^/]+\/core\//.test(source.path)) return [];
  return nodeFaults(source, (node, parent) => {
    if (node.type === "Identifier" && IMPURE.has(String(node["name"])) && isVariable(node, parent)) {
      return `uses ${String(node["name"])}; a pure part takes it as an argument`;
    }
    if (node.type === "MemberExpression" && source.text.slice(node.start, node.end) === "Math.random")
      return "uses Math.random; chance is an argument";
    if (node.type === "AwaitExpression" || node["async"] === true || node["await"] === true) return "waits; a pure part is synchronous";
    return null;
  });
};

const MARKERS = /\b(?:FIX[M]E|TO[D]O|XX[X])\b/;
const TEST_SWITCH = /^(?:test|it|describe|suite)$/;

/** Written as we agreed: nothing left for later, nothing loosely typed, nothing switched off. */
export const conventions: Rule = (source) => {
  const { path, text } = source;
  const faults = text
    .split("\n")
    .flatMap((line, index) => (MARKERS.test(line) ? [`${path}:${index + 1} leaves something for later; do it or file it`] : []));
  const mayDefault = /^(?:workers\/(?:index|local)\.ts$|[^/]+\.config\.ts$|test\/|bench\/|examples\/)/.test(path);
  if (!/^(?:[a-z0-9-]+\/)*[a-z0-9-]+(?:\.[a-z0-9-]+)*$/.test(path)) faults.push(`${path} is not named in kebab-case`);
  return faults.concat(
    nodeFaults(source, (node) => {
      if (node.type === "TSAnyKeyword") return "says any; say unknown and narrow it";
      if (node.type === "TSEnumDeclaration") return "declares an enum; use a union of literals";
      if (node.type === "ExportAllDeclaration") return "exports everything of a module; import from where things are";
      if (node.type === "ExportDefaultDeclaration" && !mayDefault) return "exports a default; only the entries of a Worker do";
      if (node["accessibility"] === "private" || node["accessibility"] === "protected")
        return "says private, which RPC ignores; use a #name";
      return switchedOff(node);
    }),
  );
};

function switchedOff(node: Node): string | null {
  if (node.type !== "MemberExpression") return null;
  const object = (node["object"] as Node)["name"];
  const property = (node["property"] as Node)["name"];
  const isSwitch = TEST_SWITCH.test(String(object)) && /^(?:skip|only|todo|skipIf|runIf|fails)$/.test(String(property));
  return isSwitch ? `says ${String(object)}.${String(property)}; every test runs` : null;
}

const MACHINE_PATH = /(?<![\w.:/~-])\/(?:work\/(?:main|shared)|home\/\w|root\/\w|tmp\/[\w.]|Users\/\w|mnt\/\w)/;
const CLIMB = /(?<=^|[\s"'`(=[])(?:\.\.\/)+/g;
const DOCUMENT = /(?<![\w./:-])[\w./-]*\w\.md\b/g;

/** The repository stands alone. `files` are all its paths, from the root. */
export function foreignReferences(path: string, text: string, files: ReadonlySet<string>): string[] {
  const depth = path.split("/").length - 1;
  return text.split("\n").flatMap((line, index) => {
    const at = `${path}:${index + 1}`;
    const faults: string[] = [];
    if (MACHINE_PATH.test(line)) faults.push(`${at} names a path of one machine`);
    for (const [climb] of line.matchAll(CLIMB))
      if (climb.length / 3 > depth) faults.push(`${at} refers to something outside the repository`);
    for (const [name] of line.matchAll(DOCUMENT)) {
      const isHere = files.has(posix.normalize(name)) || files.has(posix.join(posix.dirname(path), name));
      if (!isHere) faults.push(`${at} refers to ${name}, which is not in the repository`);
    }
    return faults;
  });
}

interface Lock {
  readonly packages: Readonly<
    Record<string, { readonly version?: string; readonly optionalDependencies?: Readonly<Record<string, string>> }>
  >;
}

/** One workerd, so that tests, the local server and the types agree; and a lock file that `npm ci` takes anywhere. */
export function lockFaults(text: string): string[] {
  const { packages } = JSON.parse(text) as Lock;
  const runtimes = Object.keys(packages).filter((path) => /(?:^|\/)node_modules\/workerd$/.test(path));
  const faults = runtimes.length === 1 ? [] : [`${runtimes.length} copies of workerd are locked; one is wanted: ${runtimes.join(", ")}`];
  for (const [path, entry] of Object.entries(packages)) {
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      const isLocked = `node_modules/${name}` in packages || `${path}/node_modules/${name}` in packages;
      if (!isLocked) faults.push(`${name} is missing in package-lock.json; run node scripts/complete-lock.mjs`);
    }
  }
  return faults;
}

export const RULES: readonly Rule[] = [importFaults, fileLength, functionLength, header, purity, conventions];
