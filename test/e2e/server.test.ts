/**
 * The local server as a user runs it: real processes, real folders, real
 * signals. Whatever happens to the processes, one folder has one writer and
 * loses nothing.
 */
import { execFile, spawn, type ChildProcess, type ExecFileException } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import type { Drover } from "../../client/cli/server/child.ts";
import { openGate } from "../../client/cli/server/gate.ts";
import { startTimeOf } from "../../client/cli/server/processes.ts";
import { useServers } from "./servers.ts";

const START = join(import.meta.dirname, "../../client/cli/start.ts");
const children: ChildProcess[] = [];
const { newFolder, start: startWith } = useServers();

const start = (dataDir: string, stderr: string[] = [], port = 0): Promise<Drover> =>
  startWith({ dataDir, port, onStderr: (text) => void stderr.push(text) });

// The last hook goes first: whoever uses a folder ends before it is removed.
afterEach(async () => {
  for (const child of children.splice(0)) if (child.exitCode === null && child.kill("SIGTERM")) await once(child, "exit");
});

function authorized(drover: Drover, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { authorization: `Bearer ${drover.token}`, "content-type": "application/json", connection: "close" };
  return fetch(drover.url + path, { ...init, headers });
}

/** Writes something durable and answers with its path. */
async function keepSomething(drover: Drover, name: string): Promise<string> {
  const path = `/v1/upstreams/${name}`;
  const answer = await authorized(drover, path, { method: "PUT", body: JSON.stringify({ origin: "http://127.0.0.1:9" }) });
  expect(answer.status).toBe(201);
  return path;
}

async function answers(drover: Drover): Promise<boolean> {
  const answer = await authorized(drover, "/healthz").catch(() => null);
  return answer?.ok === true;
}

async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error("waited 10 s in vain");
    await sleep(20);
  }
}

function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [START, ...args], (error: ExecFileException | null, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

test("a ready server says so in one line, keeps its token private, and stops cleanly with everything kept", async () => {
  const folder = join(newFolder(), "made", "here");
  const first = await start(folder);
  expect(first.token).toMatch(/^drv_root_[A-Za-z0-9_-]{43}$/);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder, "root-token")).mode & 0o777).toBe(0o600);
  const path = await keepSomething(first, "kept");
  const workerd = first.workerdPid();

  expect(await first.stop()).toBe(0);
  expect(startTimeOf(workerd)).toBeNull();
  expect(existsSync(join(folder, "lock"))).toBe(false);

  chmodSync(join(folder, "root-token"), 0o644);
  const second = await start(folder);
  expect(second.token).toBe(first.token);
  expect(statSync(join(folder, "root-token")).mode & 0o777).toBe(0o600);
  expect((await authorized(second, path)).status).toBe(200);
});

test("of several servers that start on one folder at once exactly one gets it, and the others name it", async () => {
  const folder = newFolder();
  const starts = await Promise.allSettled([1, 2, 3].map(() => start(folder)));
  const winner = starts.find((outcome) => outcome.status === "fulfilled")!.value;
  const refusals = starts.filter((outcome) => outcome.status === "rejected").map(({ reason }) => String(reason));
  expect(refusals).toHaveLength(2);
  // Whoever loses in the very same moment may not know its name yet.
  const named = /exit code 1: drover: .* is in use by (?:the Drover server with process id \d+|another Drover server)\. Stop/;
  for (const refusal of refusals) expect(refusal).toMatch(named);

  const late = await run("--data", folder, "--port", "0");
  expect(late.code).toBe(1);
  expect(late.stderr).toContain(`process id ${winner.pid}`);
  expect(await answers(winner)).toBe(true);
});

test("a workerd whose server was killed is ended by the next start, which has everything", async () => {
  const folder = newFolder();
  const first = await start(folder);
  const path = await keepSomething(first, "survivor");
  const orphan = first.workerdPid();
  await first.kill("parent");
  expect(startTimeOf(orphan)).not.toBeNull();

  const stderr: string[] = [];
  const second = await start(folder, stderr, Number(new URL(first.url).port));
  expect(startTimeOf(orphan)).toBeNull();
  expect(stderr.join("")).toContain(`ended workerd (process ${orphan})`);
  expect((await authorized(second, path)).status).toBe(200);
});

test("a workerd that is killed comes back on the same port with everything", async () => {
  const stderr: string[] = [];
  const drover = await start(newFolder(), stderr);
  const path = await keepSomething(drover, "steady");
  for (let round = 0; round < 2; round++) {
    const before = drover.workerdPid();
    process.kill(before, "SIGKILL");
    await until(() => drover.workerdPid() !== before);
    expect((await authorized(drover, path)).status).toBe(200);
    expect(stderr.join("")).toContain(`workerd (process ${before}) ended by SIGKILL`);
  }
});

test("a server that is killed together with its workerd starts again with everything", async () => {
  const folder = newFolder();
  const first = await start(folder);
  const path = await keepSomething(first, "durable");
  await first.kill("all");
  const second = await start(folder);
  expect((await authorized(second, path)).status).toBe(200);
});

test("bad flags and unusable folders are refused with what to do", async () => {
  for (const args of [
    ["--prot", "1"],
    ["--port", "70000"],
    ["--port"],
    ["extra"],
    ["--host", "a b"],
    ["--executors", "many"],
    ["--executors", "65"],
  ]) {
    const { code, stdout, stderr } = await run(...args);
    expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: "" });
    expect(stderr).toMatch(/^drover: .*--help\.\n$/);
  }
  const { code, stderr } = await run("--data", "/dev/null/x");
  expect(code).toBe(1);
  expect(stderr).toContain("--data DIR");
  expect((await run("--help")).stdout).toContain("--port N");
});

test("a port in use is refused by name", async () => {
  const drover = await start(newFolder());
  const { port } = new URL(drover.url);
  const { code, stderr } = await run("--data", newFolder(), "--port", port);
  expect(code).toBe(1);
  expect(stderr).toMatch(new RegExp(`127\\.0\\.0\\.1:${port} is in use`));
});

async function answerOf(port: number): Promise<{ socket: Socket; status: string }> {
  const socket = connect(port, "127.0.0.1");
  socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  return new Promise((resolve, reject) => {
    socket.once("data", (bytes) => resolve({ socket, status: bytes.toString().slice(9, 12) }));
    socket.once("error", reject).once("close", () => reject(new Error("closed without an answer")));
  });
}

test("the gate serves as many connections as it may, refuses the rest, and serves again when some leave", async () => {
  const drover = await start(newFolder());
  const gate = await openGate("127.0.0.1", 0, Number(new URL(drover.url).port), 8);
  const answersNow = await Promise.all(Array.from({ length: 12 }, () => answerOf(gate.port)));
  const statuses = answersNow.map(({ status }) => status).sort();
  expect(statuses).toEqual([...Array<string>(8).fill("200"), ...Array<string>(4).fill("503")]);
  for (const { socket } of answersNow) socket.destroy();
  await until(async () => {
    const { socket, status } = await answerOf(gate.port);
    socket.destroy();
    return status === "200";
  });
  gate.close();
});

test("600 connections at once at a hard limit of 1,024 descriptors are served or refused, and the server stays", async () => {
  const folder = newFolder();
  const script = 'ulimit -n 1024; exec "$0" "$@"';
  const child = spawn("sh", ["-c", script, process.execPath, START, "--json", "--port", "0", "--data", folder], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let stderr = "";
  child.stderr.on("data", (bytes: Buffer) => void (stderr += bytes.toString()));
  const exited = once(child, "exit");
  const [line] = await once(child.stdout, "data");
  const { url, token } = JSON.parse(String(line)) as { url: string; token: string };
  const workerd = (JSON.parse(readFileSync(join(folder, "lock"), "utf8")) as { workerdPid: number }).workerdPid;
  expect(stderr).toContain("only 1024 file descriptors");

  const port = Number(new URL(url).port);
  const outcomes = await Promise.allSettled(Array.from({ length: 600 }, () => answerOf(port)));
  const served = outcomes.filter((outcome) => outcome.status === "fulfilled" && outcome.value.status === "200").length;
  expect(served).toBeGreaterThan(200);
  expect(served).toBeLessThan(300);
  expect(startTimeOf(workerd)).not.toBeNull();
  for (const outcome of outcomes) if (outcome.status === "fulfilled") outcome.value.socket.destroy();
  await until(async () => (await fetch(`${url}/healthz`, { headers: { authorization: `Bearer ${token}` } })).ok);
  child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});

test("whoever ends npm ends the server: nothing of it is left behind", async () => {
  const folder = newFolder();
  const npm = spawn("npm", ["run", "-s", "start", "--", "--json", "--port", "0", "--data", folder], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  children.push(npm);
  await once(npm.stdout, "data");
  const { pid, workerdPid } = JSON.parse(readFileSync(join(folder, "lock"), "utf8")) as { pid: number; workerdPid: number };
  npm.kill("SIGTERM");
  await until(async () => startTimeOf(pid) === null && startTimeOf(workerdPid) === null);
});
