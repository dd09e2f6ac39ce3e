/** How a benchmark says what it found: one line a figure, with its target where it has one. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { arch, cpus, platform } from "node:os";
import { fileURLToPath } from "node:url";
import { type Spread, spreadOf } from "./stats.ts";

export interface Figure {
  readonly scenario: string;
  readonly name: string;
  readonly unit: string;
  readonly spread: Spread;
  readonly samples: number;
  /** At most this. */
  readonly target: number | null;
}

export function figure(scenario: string, name: string, unit: string, values: readonly number[], target: number | null = null): Figure {
  return { scenario, name, unit, spread: spreadOf(values), samples: values.length, target };
}

function versionOf(name: string): string {
  const path = fileURLToPath(new URL(`../node_modules/${name}/package.json`, import.meta.url));
  return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "no commit";
  }
}

export function machine(): string {
  const [cpu] = cpus();
  const hardware = `${cpus().length} × ${cpu?.model.trim() ?? "unknown"}, ${platform()} ${arch()}`;
  return `${hardware}, node ${process.versions.node}, workerd ${versionOf("workerd")}, commit ${commit()}`;
}

/** Keeps the figures in `bench/results/latest.json`; gives the path. */
export function save(figures: readonly Figure[]): string {
  const folder = fileURLToPath(new URL("results/", import.meta.url));
  mkdirSync(folder, { recursive: true });
  const path = `${folder}latest.json`;
  writeFileSync(path, `${JSON.stringify({ at: new Date().toISOString(), machine: machine(), figures }, null, 2)}\n`);
  return path;
}

const shown = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2));

/** One figure as a line: median, quartiles, target. */
export function lineOf({ scenario, name, unit, spread, samples, target }: Figure): string {
  const { low, median, high } = spread;
  const verdict =
    target === null ? "" : `   target ≤ ${target}${unit === "x" ? "x" : ` ${unit}`}: ${median <= target ? "reached" : "NOT reached"}`;
  const head = `${scenario.padEnd(11)} ${name.padEnd(46)}`;
  return `${head} ${shown(median).padStart(7)} ${unit.padEnd(4)} (${shown(low)} … ${shown(high)}, n = ${samples})${verdict}`;
}
