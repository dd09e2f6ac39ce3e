/** Clients beside Drover: one that keeps so many calls open, and one that opens all its connections at once. */
import { Agent, get } from "node:http";

/** What a client that was refused waits before its lane calls again. */
const REFUSED_REST_MS = 20;

export interface Client {
  /** Calls it keeps open from now on. */
  setLanes(lanes: number): void;
  stop(): Promise<void>;
}

/** Keeps `lanes` calls open until it is stopped. */
export function startClient(url: string, lanes: number): Client {
  const agent = new Agent({ keepAlive: true });
  let most = lanes;
  let open = 0;
  let hasStopped: (() => void) | null = null;
  const free = (): void => {
    open--;
    pump();
    if (open === 0) hasStopped?.();
  };
  const pump = (): void => {
    if (hasStopped !== null) return;
    while (open < most) {
      open++;
      get(url, { agent }, (response) => {
        const restMs = response.statusCode === 200 ? 0 : REFUSED_REST_MS;
        response.resume().on("end", () => (restMs === 0 ? free() : setTimeout(free, restMs)));
      }).on("error", () => setTimeout(free, REFUSED_REST_MS));
    }
  };
  pump();
  return {
    setLanes(next) {
      most = next;
      pump();
    },
    async stop() {
      const ended = new Promise<void>((resolve) => (hasStopped = resolve));
      if (open > 0) await ended;
      agent.destroy();
    },
  };
}

export interface Burst {
  /** Count by status; 0 for a connection that failed. */
  readonly statuses: ReadonlyMap<number, number>;
  readonly tookMs: readonly number[];
}

/** One request a connection, all at once: no client waits for another's answer. */
export async function burst(urls: readonly string[], headers: Readonly<Record<string, string>>): Promise<Burst> {
  const statuses = new Map<number, number>();
  const startedAt = performance.now();
  const one = (url: string): Promise<number> =>
    new Promise((resolve) => {
      const end = (status: number): void => {
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        resolve(performance.now() - startedAt);
      };
      get(url, { agent: false, headers }, (response) => {
        response.resume().on("end", () => end(response.statusCode ?? 0));
        response.on("error", () => end(0));
      }).on("error", () => end(0));
    });
  return { statuses, tookMs: await Promise.all(urls.map(one)) };
}

export interface Chunks {
  readonly status: number;
  /** Until the first byte of the body, and until its end. */
  readonly firstMs: number;
  readonly endMs: number;
}

/** When the bytes of an answer come. */
export function chunksOf(url: string, headers: Readonly<Record<string, string>>, agent: Agent): Promise<Chunks> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    get(url, { agent, headers }, (response) => {
      let firstMs = 0;
      response.on("data", () => (firstMs ||= performance.now() - startedAt));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, firstMs, endMs: performance.now() - startedAt }));
      response.on("error", reject);
    }).on("error", reject);
  });
}
