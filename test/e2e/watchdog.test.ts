/** The local server's watch over a workerd that hangs. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { watchForHang } from "../../client/cli/server/watchdog.ts";

const FAST = { pauseMs: 5, answerMs: 400, lostMax: 3 };
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
let server: Server;
let end: () => void;

/** A server that answers for as long as `answers` says so. */
async function serverThat(answers: () => boolean): Promise<string> {
  server = createServer((_, response) => {
    if (answers()) response.end("ok");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as { port: number }).port}/healthz`;
}

afterEach(() => {
  end();
  server.closeAllConnections();
  server.close();
});

test("one that takes connections and answers none hangs", async () => {
  let isWell = true;
  const url = await serverThat(() => isWell);
  let hung = 0;
  const heard = new Promise<void>((resolve) => {
    end = watchForHang(
      url,
      () => {
        hung++;
        resolve();
      },
      FAST,
    );
  });
  await pause(300);
  expect(hung).toBe(0);
  isWell = false;
  await heard;
  expect(hung).toBe(1);
});

test("one that loses an answer now and then does not hang", async () => {
  let asked = 0;
  const url = await serverThat(() => ++asked % 3 === 0);
  let hung = 0;
  // Long enough that a busy machine loses only those that are not answered.
  end = watchForHang(url, () => hung++, FAST);
  await expect.poll(() => asked, { timeout: 20_000 }).toBeGreaterThan(6);
  expect(hung).toBe(0);
});

test("one that is not there does not hang", async () => {
  const url = await serverThat(() => true);
  server.closeAllConnections();
  server.close();
  let hung = 0;
  end = watchForHang(url, () => hung++, FAST);
  await pause(300);
  expect(hung).toBe(0);
});

test("one that listens on the path of a socket is watched as well", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drover-watchdog-"));
  const socketPath = join(folder, "socket");
  let isWell = true;
  server = createServer((_, response) => {
    if (isWell) response.end("ok");
  }).listen(socketPath);
  await once(server, "listening");
  let hung = 0;
  end = watchForHang({ socketPath }, () => hung++, FAST);
  await pause(300);
  expect(hung).toBe(0);
  isWell = false;
  await expect.poll(() => hung, { timeout: 20_000 }).toBe(1);
  rmSync(folder, { recursive: true });
});
