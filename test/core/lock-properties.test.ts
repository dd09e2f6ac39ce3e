/** Whatever is asked in whatever order: who holds may hold, nobody overtakes, nobody is forgotten, and disk says what memory says. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { frontOf, imageOfLocks, isGrantable } from "../../shared/policy/lock-table.ts";
import { exclusive, reloaded, replayed, Shard, shared } from "./lock-harness.ts";

const NAMES = ["a", "b", "c"];
const name = fc.constantFrom(...NAMES);
const holder = fc.constantFrom("1", "2", "3", "1/x", "1/x/y", "2/x", "4", "5");
/** The permits of a lock are always the same here, so that few are refused. */
const wantOf = (of: string, isShared: boolean) => (isShared ? shared(of, of === "c" ? 2 : 0) : exclusive(of));

type Act = (shard: Shard) => void;

const act: fc.Arbitrary<Act> = fc.oneof(
  fc.tuple(name, holder, fc.boolean(), fc.constantFrom(0, 300, 5_000), fc.constantFrom(200, 2_000)).map(
    ([of, who, isShared, waitMs, ttlMs]): Act =>
      (shard) =>
        void shard.acquire({ ...wantOf(of, isShared), holder: who, waitMs, ttlMs }),
  ),
  fc.tuple(fc.uniqueArray(name, { minLength: 1 }), fc.nat(1_000), fc.boolean()).map(([names, n, isShared]): Act => (shard) => {
    // A holder of several asks once.
    const who = `m${shard.table.nextSeq}-${n}`;
    shard.together(
      who,
      names.map((of) => wantOf(of, isShared)),
    );
  }),
  fc.tuple(name, fc.nat(20), fc.boolean()).map(([of, n, isGuest]): Act => (shard) => {
    const holds = [...(shard.table.locks.get(of)?.holds.values() ?? [])];
    const hold = holds[n % Math.max(1, holds.length)];
    const guest = hold === undefined || !isGuest ? null : ([...hold.guests][0] ?? null);
    shard.release(hold?.fence ?? n, guest, of);
  }),
  fc.tuple(name, holder).map(
    ([of, who]): Act =>
      (shard) =>
        void shard.release(null, who, of),
  ),
  fc.constantFrom(1, 50, 500).map(
    (ms): Act =>
      (shard) =>
        shard.pass(ms),
  ),
);

function check(shard: Shard, fencesSeen: Map<number, string>): void {
  const { table } = shard;
  for (const [of, { holds, permits }] of table.locks) {
    const modes = [...holds.values()].map(({ mode }) => mode);
    if (modes.includes("exclusive")) expect(modes).toHaveLength(1);
    if (permits > 0) expect(modes.length).toBeLessThanOrEqual(permits);
    for (const { fence, holder: who } of holds.values()) {
      // A fence belongs to one holder for ever.
      expect(fencesSeen.get(fence) ?? who).toBe(who);
      fencesSeen.set(fence, who);
    }
    const front = frontOf(table, of);
    if (front !== undefined) expect(isGrantable(table, front), `${front.holder} waits for what it could have`).toBe(false);
  }
  // The first of all is at the front everywhere: it waits for holders only.
  const [first] = table.requests.values();
  for (const of of first?.queues ?? []) expect(frontOf(table, of)).toBe(first);
}

test("the rules hold after every step, and a replay and a snapshot give the same table", () => {
  fc.assert(
    fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
      const shard = new Shard();
      const fencesSeen = new Map<number, string>();
      let latest = 0;
      for (const run of acts) {
        run(shard);
        check(shard, fencesSeen);
        expect(shard.table.fence).toBeGreaterThanOrEqual(latest);
        latest = shard.table.fence;
      }
      const image = imageOfLocks(shard.table);
      expect(replayed(shard.changes)).toEqual(image);
      expect(reloaded(shard)).toEqual(image);
    }),
    { numRuns: 1_000 },
  );
});

test("among those that waited for one lock, grants go by the order of arrival", () => {
  fc.assert(
    fc.property(fc.array(act, { maxLength: 60 }), (acts) => {
      const shard = new Shard();
      for (const run of acts) run(shard);
      const queuesOf = new Map<number, readonly string[]>();
      const latest = new Map<string, number>();
      let seq = 1;
      for (const change of shard.changes) {
        if (change.kind === "asked")
          queuesOf.set(
            seq++,
            change.request.wants.map(({ name: of }) => of),
          );
        if (change.kind !== "granted" || queuesOf.get(change.seq)!.length > 1) continue;
        const [of] = queuesOf.get(change.seq)!;
        expect(change.seq).toBeGreaterThan(latest.get(of!) ?? 0);
        latest.set(of!, change.seq);
      }
    }),
  );
});
