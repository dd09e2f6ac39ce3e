/**
 * What the operating system knows of a process: whether it lives, since when,
 * and whose it is. A process id alone proves nothing, because ids are reused.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** Fields of `/proc/<pid>/stat` behind the command, which is in brackets and may hold spaces: state is 0, start time 19. */
const STAT_STATE = 0;
const STAT_START_TIME = 19;
/** workerd waits for open requests at SIGTERM, and what it acknowledged is on disk: no reason to be patient. */
const TERM_PATIENCE_MS = 250;
const KILL_PATIENCE_MS = 5_000;
const POLL_MS = 20;

function ps(...args: string[]): string | null {
  try {
    return execFileSync("ps", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim() || null;
  } catch {
    return null;
  }
}

function procFile(pid: number, name: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "utf8");
  } catch {
    return null;
  }
}

/** When the process started, in the system's own words; null if there is none, or only its remains. */
export function startTimeOf(pid: number): string | null {
  if (process.platform !== "linux") return ps("-o", "lstart=", "-p", String(pid));
  const stat = procFile(pid, "stat");
  if (stat === null) return null;
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[STAT_STATE] === "Z" || fields[STAT_STATE] === "X") return null;
  return fields[STAT_START_TIME] ?? null;
}

/** True if the process's command names `word` and its environment holds `NAME=value`. */
export function isOurs(pid: number, word: string, variable: string): boolean {
  if (process.platform !== "linux") {
    const line = ps("eww", "-o", "command=", "-p", String(pid)) ?? "";
    return line.includes(word) && line.includes(variable);
  }
  const command = procFile(pid, "cmdline") ?? "";
  const environment = procFile(pid, "environ") ?? "";
  return command.includes(word) && environment.split("\0").includes(variable);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended by itself meanwhile.
  }
}

async function gone(pid: number, startTime: string, patienceMs: number): Promise<boolean> {
  const until = Date.now() + patienceMs;
  while (startTimeOf(pid) === startTime) {
    if (Date.now() > until) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** Ends the process that started at `startTime`: politely first, then surely. False if it is still there. */
export async function endProcess(pid: number, startTime: string): Promise<boolean> {
  signal(pid, "SIGTERM");
  if (await gone(pid, startTime, TERM_PATIENCE_MS)) return true;
  if (startTimeOf(pid) === startTime) signal(pid, "SIGKILL");
  return gone(pid, startTime, KILL_PATIENCE_MS);
}
