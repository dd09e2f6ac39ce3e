/**
 * Who gets how much of the limit. Three priorities: the first takes what it
 * wants, each below keeps a floor. Within one, clients share by weight, and
 * none gets more than it wants (weighted max-min fairness). Shares are
 * fractions and permits are not, so what a client got less than its share is
 * kept as its deficit, and the largest deficits get the whole permits that are
 * left: deficit round robin (Shreedhar and Varghese, 1995), served in time.
 */
import { BAND_FLOOR } from "../../../shared/limits.ts";
import { PRIORITY_BANDS } from "../../../shared/protocol/admission.ts";
import { boundOf, type Client } from "./state.ts";

const TINY = 1e-9;
/** Keeps a whole permit where it is until another's deficit is larger by so many of a call's duration. */
const STAY_CALLS = 2;
const STAY_MS_MIN = 50;
const STAY_MS_MAX = 1_000;
/** Deficits are forgotten beyond this many call-milliseconds: a debt of minutes would starve the others. */
const CREDIT_MAX = 2_000;

/** What each band may have of `capacity`. */
function bandShares(demand: readonly number[], capacity: number): number[] {
  const floors = demand.map((wanted, band) => (band === 0 ? 0 : Math.min(wanted, BAND_FLOOR * capacity)));
  const shares: number[] = [];
  let left = capacity;
  for (let band = 0; band < PRIORITY_BANDS; band++) {
    let below = 0;
    for (let other = band + 1; other < PRIORITY_BANDS; other++) below += floors[other]!;
    const share = Math.min(demand[band]!, Math.max(left - below, floors[band]!, 0));
    shares.push(share);
    left -= share;
  }
  return shares;
}

/** Adds each client's part of `amount` in one band to its share. */
function fill(clients: readonly Client[], band: number, amount: number): void {
  let open = clients.filter(({ wants }) => wants[band]! > 0);
  let left = amount;
  while (open.length > 0 && left > TINY) {
    const weights = open.reduce((sum, { weight }) => sum + weight, 0);
    const sated = open.filter(({ wants, weight }) => wants[band]! <= (left * weight) / weights + TINY);
    if (sated.length === 0) {
      for (const client of open) client.share += (left * client.weight) / weights;
      return;
    }
    for (const client of sated) {
      client.share += client.wants[band]!;
      left -= client.wants[band]!;
    }
    open = open.filter((client) => !sated.includes(client));
  }
}

/** Sets the share and the target of every client. `passedMs` since the last time; `meanMs` is a call's duration. */
export function shareOut(clients: readonly Client[], capacity: number, passedMs: number, meanMs: number): void {
  const demand = [0, 0, 0];
  for (const client of clients) {
    client.credit = Math.max(-CREDIT_MAX, Math.min(CREDIT_MAX, client.credit + (client.share - boundOf(client)) * passedMs));
    client.share = 0;
    client.wants.forEach((wanted, band) => (demand[band] = demand[band]! + wanted));
  }
  bandShares(demand, capacity).forEach((amount, band) => fill(clients, band, amount));
  const stayMs = Math.max(STAY_MS_MIN, Math.min(STAY_MS_MAX, STAY_CALLS * meanMs));
  let whole = 0;
  let total = 0;
  const partial: { client: Client; claim: number }[] = [];
  for (const client of clients) {
    const base = Math.floor(client.share + TINY);
    total += client.share;
    whole += base;
    if (client.share - base > TINY) partial.push({ client, claim: client.credit + (client.target > base ? stayMs : 0) });
    else if (client.share <= TINY) client.credit = 0;
    client.target = base;
  }
  const rest = Math.floor(total + TINY) - whole;
  partial.sort((a, b) => b.claim - a.claim || (a.client.life < b.client.life ? -1 : 1));
  for (const { client } of partial.slice(0, rest)) client.target++;
}
