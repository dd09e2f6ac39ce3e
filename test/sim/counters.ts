/** What a goal keeps counted, recounted from its tasks: statuses, families, windows, lanes, demand, origins, queues and batches. */
import type { GoalState } from "../../durable-objects/goal/core/state.ts";
import { TASK_STATUSES } from "../../shared/protocol/goal.ts";
import { heldAt } from "./hedges/checker.ts";
import { must } from "./violation.ts";

export function checkCounters(state: GoalState, isWork: (task: number) => boolean): void {
  const { tasks } = state;
  const counts = TASK_STATUSES.map(() => 0);
  const families = new Map<number, number[]>();
  const load = state.upstreams.map(() => [0, 0]);
  const wants = state.upstreams.map(() => [0, 0, 0]);
  const left = new Map<number, number>();
  for (const [task, { upstream }] of state.backups) wants[upstream]![tasks.priority[task]!]!++;
  for (let task = 0; task < tasks.n; task++) {
    const [status, parent] = [tasks.status[task]!, tasks.parent[task]!];
    const family = families.get(parent) ?? TASK_STATUSES.map(() => 0);
    families.set(parent, family);
    family[status]!++;
    counts[status]!++;
    if (status === 0 || status === 2) wants[tasks.upstream[task]!]![tasks.priority[task]!]!++;
    if (status === 0) load[tasks.upstream[task]!]![0]!++;
    if (status !== 2) continue;
    load[tasks.upstream[task]!]![1]!++;
    if (isWork(task)) continue;
    left.set(tasks.batch[task]!, (left.get(tasks.batch[task]!) ?? 0) + 1);
  }
  must(String(counts) === String(state.counts), "counters equal the tasks", () => `${String(state.counts)} for ${String(counts)}`);
  for (const [parent, { counts: kept }] of state.families) {
    const counted = families.get(parent) ?? TASK_STATUSES.map(() => 0);
    must(String(counted) === String(kept), "families equal the tasks", () => `of ${parent}: ${String(kept)} for ${String(counted)}`);
  }
  state.upstreams.forEach(({ name, queued, running, lanes, ready, wanted, origins }, i) => {
    const [q, r] = load[i]! as [number, number];
    must(q === queued && r === running, "windows equal the tasks", () => `${name}: ${queued} ${running} for ${q} ${r}`);
    const held = heldAt(state, i);
    must(lanes === held.all, "lanes equal what the batches may have open", () => `${name}: ${lanes} for ${held.all}`);
    must(String(wanted) === String(wants[i]), "demand equals the tasks", () => `${name}: ${String(wanted)} for ${String(wants[i])}`);
    for (const [place, { open }] of origins.entries()) {
      const there = held.byOrigin.get(place) ?? 0;
      must(open === there, "origins equal the batches", () => `${name} ${place}: ${open} for ${there}`);
    }
    const entries = ready.flatMap(({ items, head }) => items.slice(head)).filter((task) => tasks.status[task] === 0);
    must(
      entries.length === q && new Set(entries).size === q,
      "each queued task is in one queue",
      () => `${name}: ${entries.length} for ${q}`,
    );
  });
  const batches = [...state.batches].map(([batch, { left: open }]) => `${batch}:${open}`);
  must(
    batches.length === left.size && batches.every((text) => left.get(Number(text.split(":")[0])) === Number(text.split(":")[1])),
    "batches equal the tasks",
    () => `${batches.join(" ")} for ${[...left].join(" ")}`,
  );
}
