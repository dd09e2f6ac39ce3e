/**
 * One server per data folder. The kernel holds the lock (SQLite's exclusive
 * lock on an empty database), so it ends with its process and can be neither
 * stale nor taken twice; `lock` beside it says who holds it. A workerd that
 * outlived its server is ended before the folder is handed out.
 */
import { randomUUID } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { endProcess, isOurs, startTimeOf } from "./processes.ts";
import { Refusal } from "./refusal.ts";

/** What `lock` says. Start times are in the system's own words. */
interface Holder {
  readonly instance: string;
  readonly pid: number;
  readonly startTime: string | null;
  readonly workerdPid: number | null;
  readonly workerdStartTime: string | null;
  readonly port: number | null;
  /** Where callers reach it; null until it is ready. */
  readonly url: string | null;
}

export interface FolderLock {
  /** Changes with every server, so that a late child of an earlier one can tell. */
  readonly instance: string;
  /** The orphan that had to be ended first, if there was one. */
  readonly endedOrphan: number | null;
  /** Notes which workerd serves the folder now. */
  note(workerdPid: number, port: number): void;
  /** Notes where callers reach the server. */
  announce(url: string): void;
  release(): void;
}

/** The variable that marks a workerd as the one of this folder. */
export function folderMark(folder: string): string {
  return `DROVER_DATA=${folder}`;
}

function readHolder(folder: string): Partial<Holder> {
  try {
    return JSON.parse(readFileSync(join(folder, "lock"), "utf8")) as Partial<Holder>;
  } catch {
    return {};
  }
}

function writeHolder(folder: string, holder: Holder): void {
  const path = join(folder, "lock");
  writeFileSync(`${path}.${holder.pid}`, `${JSON.stringify(holder)}\n`, { mode: 0o600 });
  renameSync(`${path}.${holder.pid}`, path);
}

/** Where the server of a folder is reached; null where none is ready. */
export function servedAt(folder: string): string | null {
  const { pid, startTime, url = null } = readHolder(folder);
  return pid !== undefined && startTimeOf(pid) === startTime ? url : null;
}

function lockKernel(folder: string): DatabaseSync {
  const database = new DatabaseSync(join(folder, "lock.sqlite"));
  try {
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return database;
  } catch (error) {
    database.close();
    if (!/locked|busy/i.test(String(error))) throw error;
    const { pid } = readHolder(folder);
    const who = pid === undefined ? "another Drover server" : `the Drover server with process id ${pid}`;
    throw new Refusal(
      `${folder} is in use by ${who}. Stop that one${pid === undefined ? "" : ` (kill ${pid})`}, or give this one a folder of its own with --data DIR.`,
    );
  }
}

async function endOrphan(folder: string, before: Partial<Holder>): Promise<number | null> {
  let pid: number;
  try {
    pid = Number(readFileSync(join(folder, "workerd.pid"), "utf8"));
  } catch {
    return null;
  }
  const startTime = Number.isInteger(pid) && pid > 1 ? startTimeOf(pid) : null;
  if (startTime === null || !isOurs(pid, "workerd", folderMark(folder))) return null;
  if (before.workerdPid === pid && before.workerdStartTime !== startTime) return null;
  if (await endProcess(pid, startTime)) return pid;
  throw new Refusal(`workerd with process id ${pid} still writes to ${folder} and cannot be ended. End it by hand (kill -9 ${pid}).`);
}

/** Takes the folder, or throws a `Refusal` that names the holder. */
export async function lockFolder(folder: string): Promise<FolderLock> {
  const database = lockKernel(folder);
  const before = readHolder(folder);
  const instance = randomUUID();
  const own = { instance, pid: process.pid, startTime: startTimeOf(process.pid) };
  let holder: Holder = { ...own, workerdPid: null, workerdStartTime: null, port: null, url: null };
  const write = (news: Partial<Holder>): void => writeHolder(folder, (holder = { ...holder, ...news }));
  // Named first, the orphan sought afterwards: workerd.sh does it the other way round.
  write({});
  const endedOrphan = await endOrphan(folder, before);
  rmSync(join(folder, "workerd.pid"), { force: true });
  return {
    instance,
    endedOrphan,
    note(workerdPid, port) {
      write({ workerdPid, workerdStartTime: startTimeOf(workerdPid), port });
    },
    announce(url) {
      write({ url });
    },
    release() {
      rmSync(join(folder, "workerd.pid"), { force: true });
      rmSync(join(folder, "lock"), { force: true });
      database.close();
    },
  };
}
