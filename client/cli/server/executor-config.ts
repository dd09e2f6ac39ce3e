/** What workerd serves as an executor, in its own language. */
import type { WorkerModules } from "./worker.ts";

/** The name of its one socket; where it listens is said when it is started. */
export const SOCKET = "executor";
/** What Miniflare calls the other end by, where a Worker binds an external server. */
const CAPNP_HOST = "miniflare-unsafe-internal-capnp-connect";

const KINDS = { ESModule: "esModule", CompiledWasm: "wasm" } as const;
const quoted = (text: string): string => JSON.stringify(text);
const list = (items: readonly string[]): string => `[ ${items.join(", ")} ]`;

export function capnpOf({ modules, compatibilityDate, compatibilityFlags }: WorkerModules, v8Flags: readonly string[]): string {
  const embedded = modules.map(({ type, path }) => `(name = ${quoted(path)}, ${KINDS[type]} = embed ${quoted(path)})`);
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  v8Flags = ${list(v8Flags.map(quoted))},
  services = [
    (name = "executor", worker = .executor),
    (name = "internet", network = (allow = ["public", "private", "local"], tlsOptions = (trustBrowserCas = true))) ],
  sockets = [ (name = ${quoted(SOCKET)}, http = (capnpConnectHost = ${quoted(CAPNP_HOST)}), service = (name = "executor", entrypoint = "ExecutorProcess")) ] );
const executor :Workerd.Worker = (
  modules = ${list(embedded)},
  compatibilityDate = ${quoted(compatibilityDate)},
  compatibilityFlags = ${list(compatibilityFlags.map(quoted))},
  bindings = [ (name = "NETWORK", service = "internet"), (name = "LOADER", workerLoader = ()) ] );
`;
}
