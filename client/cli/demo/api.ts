/** The few calls of the HTTP API that the demo makes, and its event stream. */
const RECONNECT_MS = 200;
const RECONNECTS_MAX = 20;

export interface Caller {
  readonly url: string;
  readonly token: string;
}

export interface GoalEvent {
  readonly type: string;
  readonly data: Record<string, unknown>;
}

/** Sends JSON and answers with the JSON; anything but 2xx throws what the problem says. */
export async function call<T>(caller: Caller, method: string, path: string, body?: string): Promise<T> {
  const response = await fetch(caller.url + path, {
    method,
    headers: { authorization: `Bearer ${caller.token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path} was answered with ${response.status}: ${text.slice(0, 500)}`);
  return JSON.parse(text) as T;
}

/** Cuts a `text/event-stream` into blocks, one an event. */
async function* blocksOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of body) {
    const blocks = (rest + decoder.decode(bytes, { stream: true })).split("\n\n");
    rest = blocks.pop()!;
    yield* blocks;
  }
}

function field(block: string, name: string): string {
  const prefix = `${name}:`;
  const values = block.split("\n").filter((line) => line.startsWith(prefix));
  return values.map((line) => line.slice(prefix.length).replace(/^ /, "")).join("\n");
}

/** Follows a goal to its `end` event; a stream that breaks is resumed where it was. */
export async function* events(caller: Caller, goalId: string): AsyncGenerator<GoalEvent> {
  let lastId = "";
  for (let tries = 0; tries <= RECONNECTS_MAX; tries++) {
    if (tries > 0) await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    const response = await fetch(`${caller.url}/v1/goals/${goalId}/events`, {
      headers: { authorization: `Bearer ${caller.token}`, accept: "text/event-stream", ...(lastId ? { "last-event-id": lastId } : {}) },
    }).catch(() => null);
    if (!response?.ok || !response.body) continue;
    try {
      for await (const block of blocksOf(response.body)) {
        lastId = field(block, "id") || lastId;
        const data = field(block, "data");
        if (!data) continue;
        const event = { type: field(block, "event"), data: JSON.parse(data) as Record<string, unknown> };
        yield event;
        if (event.type === "end") return;
      }
    } catch (error) {
      if (error instanceof SyntaxError) throw error;
    }
  }
  throw new Error(`the event stream of ${goalId} broke off and could not be resumed`);
}
