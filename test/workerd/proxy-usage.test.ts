/** What an upstream's answers used is read as they pass, whatever form they have. */
import { expect, test } from "vitest";
import { liveOf, proxied, until, upstream } from "./proxy-kit.ts";

const USAGE = { usage: { tokens: "/usage/total_tokens" }, tokensPerMinute: 1_000_000 };
const query = (fields: Record<string, string>): string => new URLSearchParams(fields).toString();

async function passed(name: string, fields: Record<string, string>): Promise<Response> {
  await upstream(name, USAGE);
  return proxied("GET", `${name}/body?${query(fields)}`, { headers: { "accept-encoding": "gzip" } });
}

test("the last of the server-sent events that tells what was used counts, and every byte passes", async () => {
  const chunk = (usage: object | null): string => `data: ${JSON.stringify({ choices: [], usage })}\n\n`;
  const text = `${chunk(null)}${chunk({ total_tokens: 7 })}${chunk({ total_tokens: 42 })}data: [DONE]\n\n`;
  const response = await passed("llm-events", { type: "text/event-stream", text, chunked: "1" });
  expect(await response.text()).toBe(text);
  await until("the governor has heard of it", async () => (await liveOf("llm-events")).tokensPerCall === 42);
});

test("a document tells what was used", async () => {
  const text = JSON.stringify({ id: "x", usage: { total_tokens: 1_234 } });
  const response = await passed("llm-document", { type: "application/json", text });
  expect(await response.text()).toBe(text);
  await until("the governor has heard of it", async () => (await liveOf("llm-document")).tokensPerCall === 1_234);
});

test("an answer larger than what is kept passes whole", async () => {
  const response = await passed("llm-large", { type: "application/json", bytes: "3000000" });
  expect((await response.arrayBuffer()).byteLength).toBe(3_000_000);
});
