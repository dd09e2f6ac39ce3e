/**
 * `locks`: 5,000 contenders on one lock over HTTP, each of which holds it for
 * about 1 ms and hands it over. Beside it a bare Worker and object that make the
 * same two durable writes a hand-over, asked in the same way by the same
 * client; and, where there is one, a Redis list whose append-only file is
 * flushed with every command. Then the locks that tasks declare.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Finding, figure } from "../report.ts";
import { freePort, type Stage } from "../stage.ts";
import { pause } from "../stats.ts";
import { lockTasks } from "./lock-tasks.ts";

const CONTENDERS = 5_000;
const CONTENDERS_FAST = 500;
/** So many come at once; who comes later than them waits behind them. */
const WAVE = 250;
const HOLD_MS = 1;
const TTL_MS = 600_000;

/** A lock, as whoever waits for it sees it. */
interface Turnstile {
  /** Waits for the lock; answers with what releases it. */
  readonly enter: (holder: string) => Promise<string>;
  readonly leave: (token: string) => Promise<void>;
  /** Who waits now. */
  readonly waiting: () => Promise<number>;
}

interface Race {
  readonly served: number;
  /** Contenders that were served before one of an earlier wave. */
  readonly inversions: number;
  readonly perSecond: number;
}

/** The first holds the lock until all others wait; then it is handed from one to the next. */
async function race(turnstile: Turnstile, contenders: number): Promise<Race> {
  const order: number[] = [];
  const first = await turnstile.enter("first");
  const rest: Promise<void>[] = [];
  const contend = async (n: number): Promise<void> => {
    const token = await turnstile.enter(`c${n}`);
    order.push(Math.floor(n / WAVE));
    await pause(HOLD_MS);
    await turnstile.leave(token);
  };
  for (let n = 0; n < contenders;) {
    for (const end = Math.min(contenders, n + WAVE); n < end; n++) rest.push(contend(n));
    while ((await turnstile.waiting()) < n) await pause(5);
  }
  const startedAt = performance.now();
  await turnstile.leave(first);
  const ends = await Promise.allSettled(rest);
  const tookMs = performance.now() - startedAt;
  const failed = ends.find((end) => end.status === "rejected");
  if (failed !== undefined) console.log(`locks: ${String(failed.reason)}`);
  let inversions = 0;
  let latest = 0;
  for (const wave of order) {
    if (wave < latest) inversions++;
    latest = Math.max(latest, wave);
  }
  return { served: order.length, inversions, perSecond: (order.length * 1_000) / tookMs };
}

/** One request on a connection of its own: no contender waits for another's. */
function ask(method: string, url: string, headers: Record<string, string>, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, agent: false, headers: { ...headers, "content-length": Buffer.byteLength(body) } }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        if (response.statusCode! < 300) resolve(text);
        else reject(new Error(`${method} ${url} answered ${response.statusCode}: ${text.slice(0, 200)}`));
      });
    });
    sent.on("error", reject).end(body);
  });
}

function ofDrover(stage: Stage, name: string): Turnstile {
  const { url, token } = stage.drover();
  const lock = `${url}/v1/locks/${name}`;
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  return {
    enter: async (holder) => {
      const body = JSON.stringify({ holder, ttlMs: TTL_MS });
      const { fence } = JSON.parse(await ask("PUT", lock, { ...headers, prefer: "wait=60" }, body)) as { fence: number };
      return String(fence);
    },
    leave: async (fence) => void (await ask("DELETE", lock, headers, JSON.stringify({ fence: Number(fence) }))),
    waiting: async () => (JSON.parse(await ask("GET", lock, headers, "")) as { queue: number }).queue,
  };
}

function ofFloor(stage: Stage, name: string): Turnstile {
  const lock = `${stage.floor.url}/lock?object=${name}`;
  const headers = { "content-type": "application/json" };
  return {
    enter: async (holder) => String((JSON.parse(await ask("PUT", lock, headers, JSON.stringify({ holder }))) as { fence: number }).fence),
    leave: async (fence) => void (await ask("DELETE", lock, headers, JSON.stringify({ fence: Number(fence) }))),
    waiting: async () => (JSON.parse(await ask("GET", lock, headers, "")) as { queue: number }).queue,
  };
}

/** A client of Redis that knows three commands: one connection, one question at a time. */
class RedisClient {
  readonly #socket: Socket;
  #resolve: ((line: string) => void) | null = null;
  #text = "";

  constructor(port: number) {
    this.#socket = connect({ host: "127.0.0.1", port, noDelay: true });
    this.#socket.on("data", (chunk) => {
      this.#text += chunk.toString();
      // Every answer here is short, and the last of its line breaks ends it.
      if (!this.#text.endsWith("\r\n") || /^[*$][1-9]\d*\r\n$/.test(this.#text)) return;
      const text = this.#text;
      this.#text = "";
      this.#resolve?.(text);
    });
  }

  ready(): Promise<unknown> {
    return once(this.#socket, "connect");
  }

  ask(...words: string[]): Promise<string> {
    const text = `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#socket.write(text);
    });
  }

  end(): void {
    this.#socket.destroy();
  }
}

/** The lock is one item of a list: who pops it holds it, and pushes it back. Redis serves those that wait in their order. */
function ofRedis(port: number, watch: RedisClient): Turnstile {
  const clients = new Map<string, RedisClient>();
  return {
    async enter(holder) {
      const client = new RedisClient(port);
      await client.ready();
      clients.set(holder, client);
      await client.ask("BLPOP", "lock", "0");
      return holder;
    },
    async leave(holder) {
      const client = clients.get(holder)!;
      await client.ask("LPUSH", "lock", "token");
      client.end();
    },
    waiting: async () => Number(/blocked_clients:(\d+)/.exec(await watch.ask("INFO", "clients"))?.[1] ?? 0),
  };
}

async function withRedis<T>(work: (turnstile: Turnstile) => Promise<T>): Promise<T | null> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "drover-redis-"));
  const options = { port, dir: folder, appendonly: "yes", appendfsync: "always", save: "", bind: "127.0.0.1", maxclients: 10_100 };
  const child = spawn(
    "redis-server",
    Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]),
    { stdio: "ignore" },
  );
  const isMissing = await Promise.race([once(child, "error").then(() => true), pause(500).then(() => false)]);
  try {
    if (isMissing) return null;
    const watch = new RedisClient(port);
    await watch.ready();
    await watch.ask("LPUSH", "lock", "token");
    return await work(ofRedis(port, watch)).finally(() => watch.end());
  } finally {
    child.kill();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** With fewer contenders where there is no time. */
export function locksOf(isFast: boolean): (stage: Stage, rounds: number) => Promise<Finding[]> {
  const contenders = isFast ? CONTENDERS_FAST : CONTENDERS;
  return async (stage, rounds) => {
    const own: Race[] = [];
    const bare: Race[] = [];
    const redis: Race[] = [];
    await race(ofDrover(stage, "warm-up"), WAVE);
    await race(ofFloor(stage, "warm-up"), WAVE);
    for (let round = 0; round < rounds; round++) {
      bare.push(await race(ofFloor(stage, `bench-${round}`), contenders));
      own.push(await race(ofDrover(stage, `bench-${round}`), contenders));
      const third = await withRedis((turnstile) => race(turnstile, contenders));
      if (third !== null) redis.push(third);
    }
    const rate = (races: readonly Race[]): number[] => races.map(({ perSecond }) => perSecond);
    const name = `${contenders} contenders on one lock`;
    const ratios = own.map(({ perSecond }, i) => perSecond / bare[i]!.perSecond);
    const beside: Finding =
      redis.length > 0
        ? figure("locks", "the same through a Redis list that is flushed with every command", "/s", rate(redis))
        : { scenario: "locks", name: "the same through a Redis list", skipped: "redis-server is not installed" };
    return [
      figure(
        "locks",
        `${name}: not served`,
        "",
        own.map(({ served }) => contenders - served),
        0,
      ),
      figure(
        "locks",
        `${name}: served before one that waited already`,
        "",
        own.map(({ inversions }) => inversions),
        0,
      ),
      figure("locks", `${name}: hand-overs`, "/s", rate(own)),
      figure("locks", "floor: a bare object, two rows a hand-over", "/s", rate(bare)),
      figure("locks", "hand-overs over the floor's of the same round", "x", ratios, { least: 0.8 }),
      beside,
      ...(await lockTasks(stage, rounds, isFast)),
    ];
  };
}
