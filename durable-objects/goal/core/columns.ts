/**
 * The goal's tasks as columns: one typed array a field, one number a task.
 * About 135 bytes a task whatever its input is, and a snapshot writes the
 * columns as they stand. A task's number is its place, and never changes.
 */
import { assert } from "../../../shared/assert.ts";

const LAYOUT = {
  status: Uint8Array,
  reason: Uint8Array,
  priority: Uint8Array,
  /** Index into `CODES`: why the task did not succeed. */
  code: Uint8Array,
  depth: Uint8Array,
  /** Attempts that ended badly and count toward `maxAttempts`. */
  failures: Uint8Array,
  maxAttempts: Uint8Array,
  /** How much speaks for the task killing its executors; see `SUSPICION_…`. */
  suspicion: Uint8Array,
  flags: Uint16Array,
  upstream: Uint16Array,
  attempt: Uint16Array,
  /** Tasks in `after` and `afterEnd` that have not ended. */
  unmet: Uint16Array,
  timeoutMs: Uint32Array,
  /** What an attempt reserves: the place in `BudgetState.reserves`, from 1; 0 for what the upstream says. */
  reserve: Uint32Array,
  /** What attempts that have ended were charged. */
  usedCalls: Uint32Array,
  usedTokens: Float64Array,
  usedMicros: Float64Array,
  /** Where the input is: the offer, and the place in it. */
  offer: Uint32Array,
  position: Uint32Array,
  /** Where the result is: the log row (0: none), and the line in it. */
  resultRow: Uint32Array,
  resultIndex: Uint32Array,
  /** The batch that runs the task; 0 when it does not run. */
  batch: Uint32Array,
  /** Task numbers, -1 for none. */
  parent: Int32Array,
  sibling: Int32Array,
  retryOf: Int32Array,
  queuedAtMs: Float64Array,
  startedAtMs: Float64Array,
  endedAtMs: Float64Array,
  /** When the backoff or the claim's lease ends; 0 outside of both. */
  dueAtMs: Float64Array,
  /** When the task expires unless it has started; 0 for never. */
  expiresAtMs: Float64Array,
} as const;

type Layout = typeof LAYOUT;
export type ColumnName = keyof Layout;
export type Columns = { [Name in ColumnName]: InstanceType<Layout[Name]> };
export const COLUMN_NAMES = Object.keys(LAYOUT) as ColumnName[];
export const COLUMN_BYTES: Readonly<Record<ColumnName, number>> = Object.fromEntries(
  COLUMN_NAMES.map((name) => [name, LAYOUT[name].BYTES_PER_ELEMENT]),
) as Record<ColumnName, number>;

const CAPACITY_MIN = 256;

export interface TaskTable extends Columns {
  /** How many tasks there are. */
  n: number;
  capacity: number;
}

export function newTable(): TaskTable {
  const columns = Object.fromEntries(COLUMN_NAMES.map((name) => [name, new LAYOUT[name](CAPACITY_MIN)]));
  return { ...(columns as unknown as Columns), n: 0, capacity: CAPACITY_MIN };
}

/** Makes room for `count` more tasks. */
export function reserve(table: TaskTable, count: number): void {
  const needed = table.n + count;
  if (needed <= table.capacity) return;
  // Half as much again keeps the waste of a large goal small, doubling that of a small one cheap.
  const capacity = Math.max(needed, Math.ceil(table.capacity * (table.capacity < 16_384 ? 2 : 1.5)));
  const untyped = table as unknown as Record<ColumnName, Columns[ColumnName]>;
  for (const name of COLUMN_NAMES) {
    const wider = new LAYOUT[name](capacity);
    wider.set(untyped[name].subarray(0, table.n));
    untyped[name] = wider;
  }
  table.capacity = capacity;
}

/** The used part of each column, for a snapshot. */
export function usedColumns(table: TaskTable): Columns {
  return Object.fromEntries(COLUMN_NAMES.map((name) => [name, table[name].subarray(0, table.n)])) as unknown as Columns;
}

/** The inverse of `usedColumns`, from the bytes of each column in `COLUMN_NAMES` order. */
export function tableFrom(n: number, bytesOf: (name: ColumnName, byteLength: number) => ArrayBuffer): TaskTable {
  const table = newTable();
  reserve(table, n);
  const untyped = table as unknown as Record<ColumnName, Columns[ColumnName]>;
  for (const name of COLUMN_NAMES) {
    const bytes = bytesOf(name, n * COLUMN_BYTES[name]);
    assert(bytes.byteLength === n * COLUMN_BYTES[name], () => `the snapshot's column ${name} has the wrong length`);
    untyped[name].set(new LAYOUT[name](bytes));
  }
  table.n = n;
  return table;
}
