/** Who gets how much of the limit: bands, weights, and single permits in turn. */
import { expect, test } from "vitest";
import { shareOut } from "../../durable-objects/governor/core/share.ts";
import type { Client } from "../../durable-objects/governor/core/state.ts";
import type { Demand } from "../../shared/protocol/admission.ts";

const client = (life: string, wants: Demand, weight = 1): Client => ({
  name: life,
  life,
  weight,
  seq: 1,
  inUse: 0,
  wants,
  given: [],
  starts: 0,
  turn: 0,
  expiresAtMs: 0,
  ttlMs: 3_000,
  heardAtMs: 0,
  toldAtMs: 0,
  share: 0,
  target: 0,
  credit: 0,
});

const targets = (clients: readonly Client[], capacity: number): number[] => {
  shareOut(clients, capacity, 0, 100);
  return clients.map(({ target }) => target);
};

test("clients share by weight", () => {
  expect(targets([client("a", [0, 99, 0]), client("b", [0, 99, 0], 3)], 40)).toEqual([10, 30]);
});

test("nobody gets more than it wants, and what it leaves goes to the others", () => {
  expect(targets([client("a", [0, 2, 0]), client("b", [0, 99, 0]), client("c", [0, 99, 0])], 20)).toEqual([2, 9, 9]);
});

test("all that is wanted is given where there is enough", () => {
  expect(targets([client("a", [1, 2, 3]), client("b", [0, 4, 0])], 100)).toEqual([6, 4]);
});

test("the first band goes before the others, which keep a twentieth each", () => {
  expect(targets([client("a", [99, 0, 0]), client("b", [0, 99, 0]), client("c", [0, 0, 99])], 40)).toEqual([36, 2, 2]);
  expect(targets([client("a", [10, 0, 0]), client("b", [0, 99, 0])], 40)).toEqual([10, 30]);
});

test("a floor that is not wanted is left to the first band", () => {
  expect(targets([client("a", [99, 0, 0]), client("b", [0, 1, 0])], 40)).toEqual([39, 1]);
});

test("no target exceeds the capacity, whatever the fractions", () => {
  const clients = Array.from({ length: 7 }, (_, i) => client(`c${i}`, [0, 99, 0], 1 + i));
  expect(targets(clients, 10).reduce((sum, target) => sum + target, 0)).toBe(10);
});

/** Call-time of each client while every one has at once what it is to have. */
function served(clients: readonly Client[], capacity: number, ms: number): number[] {
  const sums = clients.map(() => 0);
  for (let at = 0; at < ms; at += 10) {
    shareOut(clients, capacity, 10, 100);
    clients.forEach((each, i) => {
      each.given = [{ number: 1, calls: each.target }];
      sums[i]! += each.target * 10;
    });
  }
  return sums;
}

test("a single permit goes round, and each client has it for its part of the time", () => {
  const clients = [client("a", [0, 9, 0]), client("b", [0, 9, 0]), client("c", [0, 9, 0], 2)];
  const [a, b, c] = served(clients, 1, 40_000);
  for (const [got, fair] of [
    [a!, 10_000],
    [b!, 10_000],
    [c!, 20_000],
  ] as const) {
    expect(Math.abs(got - fair)).toBeLessThan(1_000);
  }
});

test("whoever waits for a permit that another still holds does not lose its turn", () => {
  const clients = [client("a", [0, 9, 0]), client("b", [0, 9, 0])];
  clients[0]!.given = [{ number: 1, calls: 1 }];
  for (let i = 0; i < 100; i++) shareOut(clients, 1, 10, 100);
  expect(clients.map(({ target }) => target)).toEqual([0, 1]);
  expect(clients[1]!.credit).toBeGreaterThan(clients[0]!.credit);
});

test("a permit stays for two calls before it goes on", () => {
  const clients = [client("a", [0, 9, 0]), client("b", [0, 9, 0])];
  let changes = 0;
  let last = "";
  for (let at = 0; at < 10_000; at += 10) {
    served(clients, 1, 10);
    const now = clients.find(({ target }) => target === 1)!.life;
    if (now !== last) changes++;
    last = now;
  }
  expect(changes).toBeGreaterThan(20);
  expect(changes).toBeLessThan(60);
});
