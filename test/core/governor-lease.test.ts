/** The client's side: what may start, for how long, and when the next report is due. */
import { expect, test } from "vitest";
import { askDueAtMs, asked, type Lease, newLease, permitted, startable, take, unanswered } from "../../shared/policy/lease.ts";
import type { Grant } from "../../shared/protocol/admission.ts";

const T = 1_000_000;

const grant = (over: Partial<Grant>): Grant => ({
  epoch: 1,
  number: 1,
  seq: 1,
  calls: 5,
  starts: null,
  ttlMs: 3_000,
  gateMs: 0,
  isOpen: false,
  origins: null,
  callsPerSecond: 0,
  ...over,
});

/** A lease of five calls from a report at `T`, answered 10 ms later. */
function leased(over: Partial<Grant> = {}, wanted = 5): Lease {
  const lease = newLease("life");
  asked(lease, wanted, 0, T);
  take(lease, grant(over), T + 10);
  return lease;
}

test("a lease runs from when its report was sent, for 0.8 of what the governor says", () => {
  const lease = leased();
  expect([permitted(lease, T + 2_399), permitted(lease, T + 2_400)]).toEqual([5, 0]);
});

test("calls start within the permits, the starts and the gate", () => {
  expect(startable(leased(), 2, T + 20)).toBe(3);
  expect(startable(leased({ starts: 1 }), 2, T + 20)).toBe(1);
  expect(startable(leased(), 7, T + 20)).toBe(0);
  const gated = leased({ gateMs: 100 });
  expect([startable(gated, 0, T + 109), startable(gated, 0, T + 110)]).toEqual([0, 5]);
});

test("an older grant and one of an older epoch are not taken", () => {
  const lease = leased({ epoch: 2, number: 7 });
  expect(take(lease, grant({ epoch: 2, number: 7, calls: 9 }), T)).toBe(false);
  expect(take(lease, grant({ epoch: 2, number: 6, calls: 9 }), T)).toBe(false);
  expect(take(lease, grant({ epoch: 1, number: 9, calls: 9 }), T)).toBe(false);
  expect(lease.calls).toBe(5);
  expect(take(lease, grant({ epoch: 3, number: 1, calls: 9 }), T)).toBe(true);
});

test("a grant that answers an earlier report is not taken, and the report goes on waiting for its own", () => {
  const lease = leased();
  asked(lease, 5, 0, T + 100);
  expect(take(lease, grant({ number: 9, calls: 50 }), T + 101)).toBe(false);
  expect([lease.isAsking, lease.calls]).toEqual([true, 5]);
  expect(take(lease, grant({ number: 10, seq: 2 }), T + 102)).toBe(true);
  expect(lease.untilMs).toBe(T + 2_500);
});

test("a spoiled permit rests until a report that tells of it is answered", () => {
  const lease = leased();
  lease.spoiled = 1;
  expect(take(lease, grant({ number: 2 }), T + 20)).toBe(true);
  expect(permitted(lease, T + 20)).toBe(4);
  expect(asked(lease, 5, 0, T + 30).held).toBe(4);
  lease.spoiled++;
  take(lease, grant({ number: 3, seq: 2 }), T + 40);
  expect(permitted(lease, T + 40)).toBe(4);
});

test("a report gives back what is not wanted, and starts that were not used are not used any more", () => {
  const lease = leased({ starts: 4 });
  expect(asked(lease, 2, 1, T + 50)).toEqual({ seq: 2, held: 2, unusedStarts: 4 });
  expect([lease.calls, startable(lease, 0, T + 51)]).toEqual([2, 0]);
  expect(asked(leased(), 5, 0, T + 50).unusedStarts).toBe(0);
});

test("nobody asks for nothing, and the first to want something asks at once", () => {
  expect(askDueAtMs(newLease("life"), 0, 0)).toBeNull();
  expect(askDueAtMs(newLease("life"), 1, 0)).toBe(0);
});

test("one report at a time, and the next one 250 ms after one without an answer", () => {
  const lease = newLease("life");
  asked(lease, 5, 0, T);
  expect(askDueAtMs(lease, 5, 0)).toBeNull();
  unanswered(lease, T + 400);
  expect(askDueAtMs(lease, 9, 0)).toBe(T + 650);
});

test("a lease is renewed after its first third", () => {
  expect(askDueAtMs(leased(), 5, 5)).toBe(T + 1_000);
  expect(askDueAtMs(leased({ ttlMs: 15_000 }), 5, 5)).toBe(T + 5_000);
});

test.for<[string, (lease: Lease) => void, number, number, number]>([
  ["eight results", (lease) => (lease.results = 8), 5, 5, 50],
  ["seven results", (lease) => (lease.results = 7), 5, 5, 1_000],
  ["more work than was asked for, and all of that granted", () => undefined, 6, 5, 50],
  ["a refusal", (lease) => (lease.spoiled = 1), 5, 5, 10],
  ["nothing left to do", () => undefined, 0, 0, 0],
  ["permits that were taken back", (lease) => take(lease, grant({ number: 2, calls: 1 }), T + 20), 5, 1, 50],
])("%s", ([, change, wanted, inUse, dueMs]) => {
  const lease = leased();
  lease.counted = 5;
  change(lease);
  expect(askDueAtMs(lease, wanted, inUse)).toBe(T + dueMs);
});

test("a call that ends beyond the permits is told of soon, one of an unchanged number is not", () => {
  const lease = newLease("life");
  asked(lease, 9, 4, T);
  take(lease, grant({ calls: 1 }), T + 5);
  expect(askDueAtMs(lease, 9, 4)).toBe(T + 1_000);
  expect(askDueAtMs(lease, 9, 3)).toBe(T + 50);
});

test("starts that are used up are asked for, and so are those for a permit that is free again", () => {
  const lease = leased({ starts: 1 });
  lease.starts = 0;
  expect(askDueAtMs(lease, 5, 1)).toBe(T + 50);
  asked(lease, 5, 1, T + 60);
  take(lease, grant({ number: 2, seq: 2, starts: 0 }), T + 65);
  expect(askDueAtMs(lease, 5, 1)).toBe(T + 1_060);
  lease.results = 1;
  expect(askDueAtMs(lease, 5, 0)).toBe(T + 110);
});

test("who has nothing open any more says so, though it holds no permit", () => {
  const lease = newLease("life");
  asked(lease, 1, 1, T);
  take(lease, grant({ calls: 0 }), T + 5);
  expect(askDueAtMs(lease, 0, 0)).toBe(T);
  asked(lease, 0, 0, T + 20);
  take(lease, grant({ calls: 0, seq: 2, number: 2 }), T + 25);
  expect(askDueAtMs(lease, 0, 0)).toBeNull();
});

test("work that comes after there was none is asked for at once", () => {
  const lease = newLease("life");
  asked(lease, 0, 0, T);
  take(lease, grant({ calls: 0 }), T + 5);
  expect(askDueAtMs(lease, 3, 0)).toBe(T);
});
