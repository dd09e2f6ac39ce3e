/**
 * The floor: the least that the same input and output cost on this machine. A
 * bare Worker that keeps a body in one Durable Object, and one that makes the
 * same calls with nothing durable, one that hands out work, and one that makes
 * one call of equal ones. Served by the same workerd, on its own socket.
 */
import { DurableObject } from "cloudflare:workers";

const ROW = 1_000_000;

export class Blob extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS blobs(id INTEGER PRIMARY KEY, body)");
  }

  /** Text or bytes: slicing is the same. */
  keep(body) {
    const length = body.length ?? body.byteLength;
    for (let at = 0; at < length; at += ROW) this.ctx.storage.sql.exec("INSERT INTO blobs(body) VALUES (?)", body.slice(at, at + ROW));
    return length;
  }

  #fence = 0;
  #isHeld = false;
  #waiting = [];

  /** A lock in two rows: one for the grant, one for the release. Who waits is in memory alone. */
  enter(holder) {
    if (!this.#isHeld) return this.#grant(holder);
    return new Promise((resolve) => this.#waiting.push({ holder, resolve }));
  }

  #grant(holder) {
    this.#isHeld = true;
    const fence = ++this.#fence;
    this.ctx.storage.sql.exec("INSERT INTO blobs(body) VALUES (?)", JSON.stringify({ holder, fence, at: Date.now() }));
    return { fence };
  }

  leave(fence) {
    this.ctx.storage.sql.exec("INSERT INTO blobs(body) VALUES (?)", JSON.stringify({ released: fence }));
    this.#isHeld = false;
    const next = this.#waiting.shift();
    next?.resolve(this.#grant(next.holder));
  }

  queue() {
    return this.#waiting.length;
  }

  #next = 0;

  /** The next inputs, and one row that says which they are. */
  handOut(max, tasks) {
    const from = this.#next;
    const to = Math.min(tasks, from + max);
    if (from === to) return '{"claims":[]}';
    this.#next = to;
    this.ctx.storage.sql.exec("INSERT INTO blobs(body) VALUES (?)", JSON.stringify({ from, to, at: Date.now() }));
    const claims = Array.from({ length: to - from }, (_, i) => ({
      taskId: headersOf(from + i)["drover-task"],
      attempt: 1,
      input: inputOf(from + i),
    }));
    return JSON.stringify({ claims });
  }
}

const inputOf = (n) => ({ n, page: `/page/${n}`, note: "as long as an input is in real life, more or less" });

/** The five headers that every attempt carries. */
const headersOf = (n) => ({
  "idempotency-key": `task_01m857dq1xrbecjdxmgr35rahr${String(n).padStart(6, "0")}`,
  "drover-goal": "goal_01m857dq1xrbecjdxmgr35rahr",
  "drover-task": `task_01m857dq1xrbecjdxmgr35rahr${String(n).padStart(6, "0")}`,
  "drover-attempt": "1",
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
});

async function fetchAll(paths, upstream, lanes) {
  let next = 0;
  let right = 0;
  const lane = async () => {
    while (next < paths.length) {
      const n = next++;
      const response = await fetch(upstream + paths[n], { method: "GET", headers: headersOf(n) });
      await response.text();
      if (response.status === 200) right++;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return right;
}

async function lock(request, blob) {
  if (request.method === "GET") return Response.json({ queue: await blob.queue() });
  const { holder, fence } = await request.json();
  if (request.method === "PUT") return Response.json(await blob.enter(holder));
  await blob.leave(fence);
  return new Response(null, { status: 204 });
}

const open = new Map();

/** Requests for one call that come while it is open get its answer, and nothing is asked of them. */
async function share(url) {
  let shared = open.get(url);
  if (shared === undefined) {
    shared = Promise.withResolvers();
    open.set(url, shared);
    const response = await fetch(new URL(url).searchParams.get("call"));
    const body = new Uint8Array(await response.arrayBuffer());
    open.delete(url);
    shared.resolve({ body, init: { headers: response.headers } });
  }
  const { body, init } = await shared.promise;
  return new Response(body, init);
}

// A Worker is its module's default export.
// oxlint-disable-next-line import/no-default-export
export default {
  async fetch(request, env) {
    if (request.url.includes("/share?")) return share(request.url);
    const { pathname, searchParams } = new URL(request.url);
    const blob = env.BLOB.get(env.BLOB.idFromName(searchParams.get("object")));
    if (pathname === "/keep-text") return Response.json(await blob.keep(await request.text()), { status: 202 });
    if (pathname === "/keep-bytes") return Response.json(await blob.keep(await request.arrayBuffer()), { status: 202 });
    if (pathname === "/hand-out")
      return new Response(await blob.handOut(Number(searchParams.get("max")), Number(searchParams.get("tasks"))));
    if (pathname === "/lock") return lock(request, blob);
    return Response.json(await fetchAll(await request.json(), searchParams.get("upstream"), Number(searchParams.get("lanes"))));
  },
};
