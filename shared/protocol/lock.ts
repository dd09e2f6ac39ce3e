/** How locks, their holders, and the keys of shared state are named. */

/** Safe in a path once it is encoded, and in the header `Drover-Fence` as it stands. */
export const LOCK_NAME = /^[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,127}$/;
/** A path of printable names. */
export const HOLDER = /^(?=.{1,512}$)[!-.0-~]+(?:\/[!-.0-~]+)*$/;

/** How goals and tasks hold: a goal's id, then numbers of tasks. */
export const TASK_HOLDER = /^goal_[^/]*(?:\/[0-9]+)*$/;

/** A key of a goal's shared state. */
export const STATE_KEY = /^[!-~]{1,256}$/;

/** The shard that a name belongs to, of a tenant-wide lock, a gate or a flight: FNV-1a, 32 bits (Fowler, Noll and Vo). */
export function shardOf(name: string, shards: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193) >>> 0;
  return hash % shards;
}
