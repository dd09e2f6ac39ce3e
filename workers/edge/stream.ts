/** Answers that go on: the goal's byte stream passed through, with nothing between that would buffer or keep it. */
import type { Answer } from "../../shared/rpc.ts";
import type { EdgeContext } from "./context.ts";
import { problem } from "./reply.ts";

export async function streamed(c: EdgeContext, answer: Answer<ReadableStream<Uint8Array>>, mediaType: string): Promise<Response> {
  if (!answer.ok) return problem(answer.error);
  const headers = { "content-type": mediaType, "cache-control": "no-store", "x-accel-buffering": "no" };
  if (c.req.raw.method !== "HEAD") return new Response(answer.value, { headers });
  // Nobody would read it, and the goal would hold it open.
  await answer.value.cancel();
  return new Response(null, { headers });
}
