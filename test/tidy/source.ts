/**
 * A source file as the tidy rules see it: its text, its syntax tree and what
 * it imports. Parsed, not searched, so that strings and comments fool no rule.
 */
import { posix } from "node:path";
import { parseSync } from "oxc-parser";

/** An ESTree node, as far as the rules look at one. */
export interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [property: string]: unknown;
}

export interface Import {
  /** A path from the repository's root for a relative import, else the package's name. Null: computed. */
  readonly target: string | null;
  readonly line: number;
}

export interface Source {
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
  /** Calls `visit` for every node below the root, with its parent. */
  walk(visit: (node: Node, parent: Node) => void): void;
  lineOf(offset: number): number;
}

const isNode = (value: unknown): value is Node => typeof value === "object" && value !== null && typeof (value as Node).type === "string";

function walkFrom(node: Node, visit: (node: Node, parent: Node) => void): void {
  for (const value of Object.values(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (!isNode(child)) continue;
      visit(child, node);
      walkFrom(child, visit);
    }
  }
}

/** The module that a node names: `import`, `export … from`, `import()` and `import("…").Type`. */
function importedBy(node: Node): unknown {
  switch (node.type) {
    case "ImportDeclaration":
    case "ExportNamedDeclaration":
    case "ExportAllDeclaration":
    case "ImportExpression":
    case "TSImportType":
      return node["source"] ?? node["argument"];
    default:
      return null;
  }
}

export function parseSource(path: string, text: string): Source {
  const { program, errors } = parseSync(path, text);
  const error = errors.at(0);
  if (error !== undefined) throw new Error(`${path} cannot be parsed: ${error.message}`);
  const root = program as unknown as Node;
  const lineOf = (offset: number): number => text.slice(0, offset).split("\n").length;
  const imports: Import[] = [];
  walkFrom(root, (node) => {
    const source = importedBy(node);
    if (!isNode(source)) return;
    const literal = source.type === "TSLiteralType" ? (source["literal"] as Node) : source;
    const name = typeof literal["value"] === "string" ? literal["value"] : null;
    const target = name?.startsWith(".") ? posix.join(posix.dirname(path), name) : name;
    imports.push({ target, line: lineOf(node.start) });
  });
  return { path, text, imports, walk: (visit) => walkFrom(root, visit), lineOf };
}
