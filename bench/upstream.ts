/**
 * The upstream of the benchmarks, in a process of its own. The path says how
 * long an answer takes (`/d20/…`: 20 ms; `/d20s1000/…`: each hundredth call
 * takes 1,000, whichever it is), and `/stats` what came.
 */
import { createServer } from "node:http";

const BODY = '{"ok":true,"answer":"forty-two......"}';
const EVERY = 100;
let calls = 0;
let lastSlowAtMs = 0;

const server = createServer((request, response) => {
  const path = request.url ?? "/";
  if (path === "/stats") {
    response.end(JSON.stringify({ calls, lastSlowAtMs }));
    calls = 0;
    lastSlowAtMs = 0;
    return;
  }
  calls++;
  const [, usualMs = 0, slowMs = usualMs] = /^\/d(\d+)(?:s(\d+))?\//.exec(path) ?? [];
  const delayMs = Number(calls % EVERY === EVERY >> 1 ? slowMs : usualMs);
  const answer = (): void => {
    response.setHeader("content-type", "application/json");
    response.end(BODY);
  };
  request.resume();
  if (delayMs === 0) return answer();
  if (delayMs >= 1_000) lastSlowAtMs = Date.now();
  setTimeout(answer, delayMs);
});
server.keepAliveTimeout = 120_000;
server.listen(0, "127.0.0.1", 4_096, () => {
  const address = server.address();
  process.send!(typeof address === "object" && address !== null ? address.port : 0);
});
process.on("disconnect", () => process.exit(0));
