/**
 * The Worker as Miniflare takes it: bundled from its source, with the bindings
 * that wrangler.toml declares, so that nothing is configured twice.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { V4WorkerOptions } from "miniflare";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** Made from what is installed, and gone with it. */
export const CACHE = join(ROOT, "node_modules/.cache/drover");
const CONFIG = join(ROOT, "wrangler.toml");
/** The deployed Worker, with executors that may have processes of their own; and what such a process serves. */
const SERVER = "workers/local.ts";
const EXECUTOR = "workers/processes/executor.ts";

interface Plan {
  readonly name: string;
  readonly define: Record<string, string>;
  readonly options: Record<string, unknown>;
}

async function readPlan(): Promise<Plan> {
  // Wrangler prints what it thinks of missing secrets; the local server sets them itself.
  process.env["WRANGLER_LOG"] ??= "none";
  process.env["WRANGLER_SEND_METRICS"] = "false";
  const { unstable_getMiniflareWorkerOptions, unstable_readConfig } = await import("wrangler");
  const config = unstable_readConfig({ config: CONFIG }, { hideWarnings: true });
  const { workerOptions, define } = unstable_getMiniflareWorkerOptions(config);
  // Rules for other kinds of modules are the bundler's business.
  const { modulesRules: _, ...options } = workerOptions;
  // Only what the file says: wrangler adds secrets of the environment, which have no place in a cache.
  return { name: config.name!, define, options: { ...options, bindings: config.vars } };
}

/** Importing wrangler takes longer than all the rest of a start, so its answer is kept until its input changes. */
async function plan(): Promise<Plan> {
  const version = readFileSync(join(ROOT, "node_modules/wrangler/package.json"));
  const inputs = [ROOT, version, readFileSync(CONFIG), readFileSync(import.meta.filename)];
  const key = inputs.reduce((hash, input) => hash.update(input), createHash("sha256")).digest("hex");
  const path = join(CACHE, `worker-${key}.json`);
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Plan;
  } catch {
    const made = await readPlan();
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.${process.pid}`, JSON.stringify(made));
    renameSync(`${path}.${process.pid}`, path);
    return made;
  }
}

interface Module {
  readonly type: "ESModule" | "CompiledWasm";
  readonly path: string;
  readonly contents: string | Uint8Array;
}

/** A Worker as workerd takes it. */
export interface WorkerModules {
  /** The script first, then the modules of WebAssembly that it imports by their names. */
  readonly modules: readonly Module[];
  readonly compatibilityDate: string;
  readonly compatibilityFlags: readonly string[];
}

/** The modules of each script. */
async function bundle(scripts: readonly string[], define: Record<string, string>): Promise<Module[][]> {
  const { build, stop } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: scripts.map((path) => ({ in: path, out: basename(path, ".ts") })),
    absWorkingDir: ROOT,
    bundle: true,
    write: false,
    outdir: ROOT,
    loader: { ".wasm": "copy" },
    assetNames: "[name]",
    format: "esm",
    target: "es2024",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*", "node:*"],
    define,
    sourcemap: "inline",
    logLevel: "warning",
  });
  await stop();
  const isWasm = ({ path }: { readonly path: string }): boolean => path.endsWith(".wasm");
  const engines = outputFiles.filter(isWasm).map(({ path, contents }) => ({ type: "CompiledWasm", path, contents }) as const);
  return scripts.map((script) => {
    const { path, text } = outputFiles.find((file) => file.path === join(ROOT, `${basename(script, ".ts")}.js`))!;
    return [{ type: "ESModule", path, contents: text }, ...engines];
  });
}

export interface Workers {
  /** Everything that Miniflare needs to know of it. */
  readonly server: V4WorkerOptions;
  /** Null where it was not asked for. */
  readonly executor: WorkerModules | null;
}

/** `overrides` are variables that differ locally. */
export async function bundleWorkers(overrides: Record<string, string>, hasExecutors: boolean): Promise<Workers> {
  const { name, define, options } = await plan();
  const [modules, executor] = (await bundle(hasExecutors ? [SERVER, EXECUTOR] : [SERVER], define)) as [Module[], Module[]?];
  const declared = (options["bindings"] ?? {}) as Record<string, string>;
  const server = {
    ...options,
    name,
    rootPath: ROOT,
    modules,
    modulesRoot: ROOT,
    bindings: { ...declared, ...overrides },
    // Miniflare would send every call through a Worker of its own.
    serviceBindings: { NETWORK: { network: { allow: ["public", "private", "local"], tlsOptions: { trustBrowserCas: true } } } },
  };
  return {
    server,
    executor:
      executor === undefined
        ? null
        : {
            modules: executor.map((module) => ({ ...module, path: relative(ROOT, module.path) })),
            compatibilityDate: options["compatibilityDate"] as string,
            compatibilityFlags: options["compatibilityFlags"] as string[],
          },
  };
}
