/** How a benchmark says what it found: one line a figure, with its target where it has one. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { arch, cpus, loadavg, platform } from "node:os";
import { fileURLToPath } from "node:url";
import { type Spread, spreadOf } from "./stats.ts";

export interface Figure {
  readonly scenario: string;
  readonly name: string;
  readonly unit: string;
  readonly spread: Spread;
  readonly samples: number;
  readonly target: Target | null;
}

/** A number alone is the most that is allowed. */
export type Target = number | { readonly least: number };

/** What could not be measured, and why. */
export interface Skipped {
  readonly scenario: string;
  readonly name: string;
  readonly skipped: string;
}

export type Finding = Figure | Skipped;

export function figure(scenario: string, name: string, unit: string, values: readonly number[], target: Target | null = null): Figure {
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
  return `${hardware}, node ${process.versions.node}, workerd ${versionOf("workerd")}, commit ${commit()}, load ${loadavg()[0]!.toFixed(1)}`;
}

/** Keeps the figures in `bench/results/latest.json`; gives the path. */
export function save(figures: readonly Finding[]): string {
  const folder = fileURLToPath(new URL("results/", import.meta.url));
  mkdirSync(folder, { recursive: true });
  const path = `${folder}latest.json`;
  writeFileSync(path, `${JSON.stringify({ at: new Date().toISOString(), machine: machine(), figures }, null, 2)}\n`);
  return path;
}

const shown = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2));

function verdictOf({ target, unit, spread }: Figure): string {
  if (target === null) return "";
  const isMost = typeof target === "number";
  const bound = isMost ? target : target.least;
  const isReached = isMost ? spread.median <= bound : spread.median >= bound;
  return `   target ${isMost ? "≤" : "≥"} ${bound}${unit === "x" ? "x" : ` ${unit}`}: ${isReached ? "reached" : "NOT reached"}`;
}

/** One finding as a line: median, quartiles, target. */
export function lineOf(found: Finding): string {
  const head = `${found.scenario.padEnd(11)} ${found.name.padEnd(54)}`;
  if ("skipped" in found) return `${head} skipped: ${found.skipped}`;
  const { unit, spread, samples } = found;
  const { low, median, high } = spread;
  return `${head} ${shown(median).padStart(7)} ${unit.padEnd(4)} (${shown(low)} … ${shown(high)}, n = ${samples})${verdictOf(found)}`;
}
