/**
 * When tasks' times come: ends of backoffs and times to live, in one binary
 * heap of (time, task). An entry whose task has moved on is stale, and is
 * dropped when it reaches the top. The heap is derived from the columns and is
 * never stored.
 */
export interface Timers {
  times: number[];
  tasks: number[];
}

export function newTimers(): Timers {
  return { times: [], tasks: [] };
}

export function nextTimeMs(timers: Timers): number | null {
  return timers.times[0] ?? null;
}

/** Ties break by task number, so that the order never depends on history. */
function isBefore(timers: Timers, a: number, b: number): boolean {
  const [timeA, timeB] = [timers.times[a]!, timers.times[b]!];
  return timeA < timeB || (timeA === timeB && timers.tasks[a]! < timers.tasks[b]!);
}

function swap({ times, tasks }: Timers, a: number, b: number): void {
  [times[a], times[b]] = [times[b]!, times[a]!];
  [tasks[a], tasks[b]] = [tasks[b]!, tasks[a]!];
}

export function addTimer(timers: Timers, atMs: number, task: number): void {
  let at = timers.times.push(atMs) - 1;
  timers.tasks.push(task);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(timers, at, parent)) return;
    swap(timers, at, parent);
    at = parent;
  }
}

/** Takes the earliest task whose time is `nowMs` or before. */
export function takeDue(timers: Timers, nowMs: number): number | null {
  if (timers.times.length === 0 || timers.times[0]! > nowMs) return null;
  const task = timers.tasks[0]!;
  const last = timers.times.length - 1;
  swap(timers, 0, last);
  timers.times.pop();
  timers.tasks.pop();
  for (let at = 0; ;) {
    const left = at * 2 + 1;
    let least = at;
    if (left < last && isBefore(timers, left, least)) least = left;
    if (left + 1 < last && isBefore(timers, left + 1, least)) least = left + 1;
    if (least === at) return task;
    swap(timers, at, least);
    at = least;
  }
}
