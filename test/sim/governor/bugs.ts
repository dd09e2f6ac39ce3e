/** Bugs that are planted in a governor, its lease and their world, to show that the checkers find them. */
import type { Bug } from "../bugs.ts";

const core = (name: string): string => `durable-objects/governor/core/${name}.ts`;
const LEASE = "shared/policy/lease.ts";

export const BUGS: Readonly<Record<string, Bug>> = {
  "forget-unacknowledged": {
    says: "only the latest grant counts, though a client may act on an earlier one",
    file: core("state"),
    from: "for (const { calls } of given) if (calls > most) most = calls;",
    to: "most = Math.max(most, given.at(-1)?.calls ?? 0);",
  },
  "forget-in-use": {
    says: "calls that are open count for nothing once a smaller grant is out",
    file: core("state"),
    from: "let most = inUse;",
    to: "let most = 0 * inUse;",
  },
  "forget-old-lives": {
    says: "what an earlier life of a client has open is not counted",
    file: core("step"),
    from: "if (governor.upstream?.maxConcurrency === null) governor.clients.delete(life);",
    to: "governor.clients.delete(life);",
  },
  "skip-learning": {
    says: "a governor that lost its memory gives out everything at once",
    file: core("state"),
    from: "learnUntilMs: mayLive ? nowMs + kept.ttlMs : 0,",
    to: "learnUntilMs: mayLive ? nowMs + 1 + 0 * kept.ttlMs : 0,",
  },
  "learn-too-short": {
    says: "a governor that lost its memory waits for less than a lease",
    file: core("state"),
    from: "learnUntilMs: mayLive ? nowMs + kept.ttlMs : 0,",
    to: "learnUntilMs: mayLive ? nowMs + kept.ttlMs / 4 : 0,",
  },
  "lease-from-receipt": {
    says: "a lease runs from when its grant came",
    file: LEASE,
    from: "lease.untilMs = lease.sentAtMs + grant.ttlMs * LEASE_USE;",
    to: "lease.untilMs = nowMs + grant.ttlMs;",
  },
  "take-stale-answer": {
    says: "a client takes what answers an earlier report",
    file: LEASE,
    from: "if (grant.seq !== lease.seq) return false;",
    to: "if (grant.seq > lease.seq) return false;",
  },
  "take-older-grant": {
    says: "a client takes a grant though it has taken a later one",
    file: LEASE,
    from: "if (!isLater) return false;",
    to: "if (!isLater && grant.number === 0) return false;",
  },
  "hear-stale-report": {
    says: "a report that was overtaken is heard",
    file: core("step"),
    from: "if (known !== undefined && said.seq <= known.seq) return",
    to: "if (known !== undefined && said.seq < known.seq - 9) return",
  },
  "give-back-twice": {
    says: "starts that are given back are counted twice",
    file: core("rate"),
    from: "arrivalMs - count * intervalMs);",
    to: "arrivalMs - 2 * count * intervalMs);",
  },
  "round-rate-down": {
    says: "a third of a second is no time to start a call",
    file: core("rate"),
    from: "Math.floor((burstMs - Math.max(0, arrivalMs - nowMs)) / intervalMs + TINY)",
    to: "Math.floor((nowMs + burstMs - Math.max(arrivalMs, nowMs)) / intervalMs)",
  },
  "ignore-weights": {
    says: "everybody gets the same",
    file: core("share"),
    from: "client.share += (left * client.weight) / weights;",
    to: "client.share += left / open.length + 0 * weights;",
  },
  "forget-deficits": {
    says: "whoever has a whole permit keeps it",
    file: core("share"),
    from: "(client.share - boundOf(client)) * passedMs",
    to: "0 * boundOf(client) * passedMs",
  },
  "drop-floor": {
    says: "a lower band gets what the upper ones leave",
    file: core("share"),
    from: "Math.min(wanted, BAND_FLOOR * capacity)",
    to: "Math.min(wanted, 0 * BAND_FLOOR * capacity)",
  },
  "probe-without-interval": {
    says: "an open circuit is probed at every report",
    file: core("grant"),
    from: "if (nowMs < health.probedAtMs + PROBE_INTERVAL_MS ||",
    to: "if (nowMs < health.probedAtMs + 0 * PROBE_INTERVAL_MS ||",
  },
  "circuit-stays-open": {
    says: "an origin that answers again is not believed",
    file: core("health"),
    from: "  if (reached > 0) {",
    to: "  if (reached > 0 && origin.restUntilMs === 0) {",
  },
  "circuit-never-opens": {
    says: "an upstream that is gone is called as before",
    file: core("grant"),
    from: "  if (health.isOpen) {\n    calls = ",
    to: "  if (health.isOpen && nowMs < 0) {\n    calls = ",
  },
  "epoch-not-kept": {
    says: "permits leave before it is durable that they are out",
    file: core("step"),
    from: "const isBusy = boundOfAll(governor) > 0 || nowMs < governor.learnUntilMs;",
    to: "const isBusy = boundOfAll(governor) > 2 || nowMs < governor.learnUntilMs;",
  },
  "send-before-commit": {
    says: "grants leave before the commit",
    file: "test/sim/governor/governor.ts",
    from: "    this.#release(() => {\n      this.#around.leaves(grant);\n      answer(grant);\n    });",
    to: "    this.#around.leaves(grant);\n    answer(grant);",
  },
  "reuse-spoiled": {
    says: "a permit whose call was refused is used again at once",
    file: LEASE,
    from: "Math.max(0, lease.calls - lease.spoiled)",
    to: "Math.max(0, lease.calls)",
  },
  "ignore-gate": {
    says: "clients do not keep a gate that the governor tells of",
    file: LEASE,
    from: "if (nowMs < lease.gateUntilMs) return 0;",
    to: "",
  },
  "never-rest": {
    says: "nothing wakes a governor whose clients are gone",
    file: core("step"),
    from: "  for (const { expiresAtMs } of governor.clients.values()) at = Math.min(at, expiresAtMs);\n",
    to: "",
  },
  "keep-to-oneself": {
    says: "a client with nothing to do does not say so",
    file: LEASE,
    from: "lease.calls > 0 || inUse > 0 || lease.wanted > 0;",
    to: "inUse > 0;",
  },
  "push-nothing": {
    says: "permits that become free are given only to those who ask",
    file: core("step"),
    from: "    if (!mayHaveMore(governor, client, free, nowMs)) continue;\n",
    to: "    if (!mayHaveMore(governor, client, free, nowMs) || nowMs > 0) continue;\n",
  },
  "abort-nothing": {
    says: "an executor goes on with calls whose permit has ended",
    file: "test/sim/governor/client.ts",
    from: "if (run.permitUntilMs > untilMs) return this.#watch(run);",
    to: "if (run.permitUntilMs > 0) return;",
  },
};
