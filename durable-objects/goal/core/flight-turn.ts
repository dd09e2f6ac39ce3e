/**
 * The goal as one who wants answers of calls that other goals may want too. It
 * asks a shard of flights for each key of its own once, whatever the number of
 * its tasks, and tells it what became of a call that it made. A shard that does
 * not answer, or a word that is lost, costs a call, never a task.
 */
import { ASK_RETRY_MS } from "../../../shared/limits.ts";
import {
  FLIGHT_FAILURES_MAX,
  FLIGHT_GOAL_LEASE_MS,
  FLIGHT_KEYS_PER_MESSAGE_MAX,
  FLIGHT_MESSAGE_CHARS_MAX,
  FLIGHT_PAYLOAD_CHARS_MAX,
} from "../../../shared/limits-flight.ts";
import { type FlightEnd, type FlightMessage, flightShardOf, type GoalFlightNews } from "../../../shared/protocol/flight.ts";
import { formatLine, payloadOf } from "../../../shared/protocol/line.ts";
import { FOR_FLIGHT, QUEUED, WAITING } from "./codes.ts";
import type { FlightsChange } from "./flights.ts";
import { isPaused } from "./kin.ts";
import { succeed } from "./lifecycle.ts";
import { fly } from "./mutate.ts";
import type { Recorder } from "./recorder.ts";
import type { GoalState } from "./state.ts";

const WHOLE_AFTER_MS = FLIGHT_GOAL_LEASE_MS / 3;

function record(rec: Recorder, change: FlightsChange): void {
  fly(rec.state, change);
  rec.out.changes.push(change);
}

/** The call that the task led has a result: other goals may have it too. Before the task ends. */
export function noteAnswer({ state: { flights } }: Recorder, task: number, line: string): void {
  const key = flights.of.size === 0 ? undefined : flights.of.get(task);
  if (key === undefined || flights.groups.get(key)?.captain !== task || !flights.soft.told.has(key)) return;
  const payload = payloadOf(line);
  flights.soft.words.set(key, payload.length > FLIGHT_PAYLOAD_CHARS_MAX ? { how: "alone" } : { payload });
  flights.soft.fresh.add(key);
}

/** A new incarnation: another goal may lead by now, so who has not begun to call asks again. */
export function recoverFlights(rec: Recorder): void {
  const { flights, tasks } = rec.state;
  const keys = [...flights.groups].filter(([, { isLeading, captain }]) => isLeading && tasks.status[captain] === QUEUED);
  if (keys.length > 0) record(rec, { kind: "flights.grounded", keys: keys.map(([key]) => key) });
}

/** Writes the messages that are due. Once a turn, after what it decided. */
export function tellFlights(rec: Recorder): void {
  const { state, nowMs } = rec;
  const { flights } = state;
  const { soft, groups } = flights;
  if (groups.size === 0 && soft.fresh.size === 0) return;
  const isPausing = isPaused(state);
  const isWhole = nowMs >= soft.wholeAtMs + WHOLE_AFTER_MS;
  if (isWhole) soft.wholeAtMs = nowMs;
  const byShard = Map.groupBy(isWhole ? new Set([...soft.fresh, ...groups.keys()]) : soft.fresh, (key) => shardFor(state, key));
  for (const [shard, keys] of byShard) {
    const talk = talkWith(state, shard);
    if (talk.isAsking || nowMs < talk.restUntilMs) continue;
    // A goal that rests lets others lead: it says nothing of what it leads.
    const message = messageFor(rec, shard, keys, isPausing, isWhole && !isPausing && !state.budget.isExhausted);
    if (message.asks.length + message.ends.length + message.renews.length === 0) continue;
    talk.isAsking = true;
    rec.out.flightMessages.push(message);
  }
}

function messageFor(rec: Recorder, shard: number, keys: readonly number[], isPausing: boolean, isRenewing: boolean): FlightMessage {
  const { state, nowMs } = rec;
  const { flights, goal } = state;
  const { soft, groups } = flights;
  const ends: FlightEnd[] = [];
  const asks: string[] = [];
  const renews: string[] = [];
  let chars = 0;
  for (const key of keys) {
    if (ends.length + asks.length + renews.length >= FLIGHT_KEYS_PER_MESSAGE_MAX || chars >= FLIGHT_MESSAGE_CHARS_MAX) break;
    const word = soft.words.get(key);
    const text = flights.keys[key]!;
    if (word !== undefined) {
      ends.push({ key: text, ...word });
      soft.words.delete(key);
      soft.told.delete(key);
      if ("payload" in word) chars += word.payload.length;
    }
    const group = groups.get(key);
    // What is asked for in vain while the goal is paused is asked for when it goes on.
    if (group !== undefined && isPausing) continue;
    soft.fresh.delete(key);
    if (group === undefined) continue;
    if (group.isLeading && soft.told.has(key)) {
      if (isRenewing) renews.push(text);
      continue;
    }
    if (!group.isLeading && group.failures >= FLIGHT_FAILURES_MAX) {
      record(rec, { kind: "flights.parted", key, atMs: nowMs });
      continue;
    }
    asks.push(text);
    soft.told.add(key);
  }
  return { goalId: goal!.id, shard, ends, asks, renews };
}

/** Takes what a shard says; null where it did not answer. `message`: what it answers to; null where it speaks by itself. */
export function takeFlightNews(rec: Recorder, message: FlightMessage | null, news: GoalFlightNews | null): void {
  const { state, nowMs } = rec;
  const { soft, numbers } = state.flights;
  if (message !== null) {
    const talk = talkWith(state, message.shard);
    talk.isAsking = false;
    talk.restUntilMs = news === null ? nowMs + ASK_RETRY_MS : 0;
    for (const text of news === null ? message.asks : []) soft.fresh.add(numbers.get(text)!);
  }
  if (news === null) return;
  const led: number[] = [];
  for (const text of news.leads) {
    const key = numbers.get(text);
    if (key === undefined) continue;
    if (isWaiting(state, key)) led.push(key);
    else if (state.flights.groups.get(key)?.isLeading !== true) {
      // Nobody here wants it any more.
      soft.words.set(key, { how: "left" });
      soft.fresh.add(key);
    }
  }
  if (led.length > 0) record(rec, { kind: "flights.led", keys: led, atMs: nowMs });
  for (const { key, payload } of news.answers) takeAnswer(rec, numbers.get(key), payload);
  for (const text of news.alone) {
    const key = numbers.get(text);
    if (key !== undefined && isWaiting(state, key)) record(rec, { kind: "flights.parted", key, atMs: nowMs });
  }
}

/** Whether tasks with this key wait for what comes of it. */
function isWaiting({ tasks, flights }: GoalState, key: number): boolean {
  const group = flights.groups.get(key);
  if (group === undefined || group.isLeading) return false;
  return tasks.status[group.captain] === WAITING && tasks.reason[group.captain] === FOR_FLIGHT;
}

/** Another goal's call has a result: it is that of all tasks with the same key. */
function takeAnswer(rec: Recorder, key: number | undefined, payload: string): void {
  const { state, nowMs } = rec;
  if (key === undefined) return;
  state.flights.soft.told.delete(key);
  if (!isWaiting(state, key)) return;
  const { captain } = state.flights.groups.get(key)!;
  const head = {
    task: captain,
    attempt: 0,
    outcome: "answered",
    status: 0,
    retryAfterMs: 0,
    startedAtMs: nowMs,
    endedAtMs: nowMs,
  } as const;
  succeed(rec, captain, rec.out.keep(formatLine(head, payload)), 0, 0);
}

/** When the goal must say something; the end of time for never. */
export function flightsAtMs(state: GoalState): number {
  const { soft, groups } = state.flights;
  if (isPaused(state)) return Number.MAX_SAFE_INTEGER;
  let at = groups.size === 0 ? Number.MAX_SAFE_INTEGER : soft.wholeAtMs + WHOLE_AFTER_MS;
  // What is new, and was not said by the end of the turn, came late in it, or waits for a shard that did not answer.
  for (const key of soft.fresh) {
    const talk = soft.talks.get(shardFor(state, key));
    if (talk?.isAsking !== true) at = Math.min(at, talk?.restUntilMs ?? 0);
  }
  return at;
}

const shardFor = ({ flights }: GoalState, key: number): number => flightShardOf(flights.keys[key]!);

function talkWith({ flights: { soft } }: GoalState, shard: number): { isAsking: boolean; restUntilMs: number } {
  let talk = soft.talks.get(shard);
  if (talk === undefined) soft.talks.set(shard, (talk = { isAsking: false, restUntilMs: 0 }));
  return talk;
}
