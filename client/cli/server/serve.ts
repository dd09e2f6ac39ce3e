/**
 * The local server from folder to socket: lock, token, descriptors, workerd,
 * and the gate where one is needed. Whatever it opened it closes again, in the
 * opposite order.
 */
import { findDescriptors, describeLowLimit } from "./descriptors.ts";
import { openFolder, rootToken, tokenPath } from "./data-folder.ts";
import { openGate } from "./gate.ts";
import { lockFolder } from "./lock.ts";
import { startExecutors, withExecutors } from "./executors.ts";
import { startRuntime } from "./runtime.ts";
import { bundleWorkers } from "./worker.ts";
import { Refusal } from "./refusal.ts";
import { watchForHang } from "./watchdog.ts";

const READY_TIMEOUT_MS = 10_000;

export interface ServeOptions {
  readonly port: number;
  readonly host: string;
  readonly data: string;
  /** Executors in processes of their own. */
  readonly executors: number;
  readonly say: (line: string) => void;
  /** Called when workerd cannot be kept running. */
  readonly onGiveUp: () => void;
}

export interface Server {
  readonly url: string;
  readonly token: string;
  readonly tokenPath: string;
  readonly data: string;
  close(): Promise<void>;
}

function urlOf(host: string, port: number): string {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `http://${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`;
}

async function untilHealthy(url: string): Promise<void> {
  const answer = await fetch(`${url}/healthz`, { headers: { connection: "close" }, signal: AbortSignal.timeout(READY_TIMEOUT_MS) });
  await answer.body?.cancel();
  if (!answer.ok) throw new Refusal(`the server started, but ${url}/healthz answers ${answer.status}.`);
}

/** Serves the folder until `close`. Ready when the socket answers. */
export async function serve(options: ServeOptions): Promise<Server> {
  const { host, say } = options;
  const closers: (() => void | Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer; closer = closers.pop()) await closer();
  };
  try {
    const data = openFolder(options.data);
    const lock = await lockFolder(data);
    closers.push(() => lock.release());
    if (lock.endedOrphan !== null) say(`ended workerd (process ${lock.endedOrphan}), which an earlier server had left behind.`);
    const token = rootToken(data);
    const descriptors = findDescriptors();
    const { limit, connectionsMax } = descriptors;
    if (connectionsMax !== null) say(describeLowLimit(descriptors));

    // The bundler is a process of its own, so Miniflare loads meanwhile.
    const variables = { EXECUTOR_TRANSPORT: "loopback", ROOT_TOKEN: token, BOOT_ID: crypto.randomUUID() };
    const bundling = bundleWorkers(variables, options.executors > 0);
    const [workers, miniflare] = await Promise.all([bundling, import("miniflare")]);
    const executors = startExecutors({ count: options.executors, worker: workers.executor, folder: data, descriptors: limit, say });
    closers.push(() => executors.stop());
    const behindGate = connectionsMax !== null;
    const runtime = await startRuntime({
      miniflare,
      worker: withExecutors(workers.server, executors),
      folder: data,
      instance: lock.instance,
      host: behindGate ? "127.0.0.1" : host,
      port: behindGate ? 0 : options.port,
      descriptors: limit,
      say,
      onExit: () => executors.restart(),
      onStart(pid, port) {
        lock.note(pid, port);
        executors.release();
      },
      onGiveUp: options.onGiveUp,
    });
    closers.push(() => runtime.stop());
    closers.push(() => executors.retire());
    closers.push(watchForHang(`${urlOf(behindGate ? "127.0.0.1" : host, runtime.port)}/healthz`, () => runtime.endHung()));
    let port = runtime.port;
    if (behindGate) {
      const gate = await openGate(host, options.port, runtime.port, connectionsMax);
      closers.push(() => gate.close());
      port = gate.port;
    }
    const url = urlOf(host, port);
    await untilHealthy(url);
    lock.announce(url);
    return { url, token, tokenPath: tokenPath(data), data, close };
  } catch (error) {
    await close();
    throw error;
  }
}
