/**
 * Ends a workerd that hangs. One machine has no limit on processor time, so a
 * function with an endless loop in an isolate stops everything, and a hung
 * process hears no signal but SIGKILL. Questions are counted, not minutes: a
 * laptop that slept has not hung.
 */
import { request, type RequestOptions } from "node:http";

const PAUSE_MS = 1_000;
const ANSWER_MS = 5_000;
/** So many questions without an answer, a minute, mean that it hangs: a herd of connections can hold up one for seconds. */
const LOST_MAX = 10;

export interface WatchOptions {
  readonly pauseMs?: number;
  readonly answerMs?: number;
  readonly lostMax?: number;
}

/** Where to ask: a URL, or the path of a socket. */
export type Watched = string | { readonly socketPath: string };

function answer(watched: Watched, answerMs: number): Promise<void> {
  const signal = AbortSignal.timeout(answerMs);
  const options: RequestOptions = { agent: false, signal };
  return new Promise((resolve, reject) => {
    const asking = typeof watched === "string" ? request(watched, options) : request({ ...watched, ...options });
    asking.once("response", (response) => void response.resume().once("close", resolve));
    asking.once("error", (error) => reject(signal.aborted ? (signal.reason as Error) : error));
    asking.end();
  });
}

/** Asks again and again; `onHung` hears when it takes connections and answers none of them. Returns what ends the watch. */
export function watchForHang(watched: Watched, onHung: () => void, options: WatchOptions = {}): () => void {
  const { pauseMs = PAUSE_MS, answerMs = ANSWER_MS, lostMax = LOST_MAX } = options;
  let lost = 0;
  let timer: NodeJS.Timeout | undefined;
  let isOver = false;
  const ask = async (): Promise<void> => {
    try {
      await answer(watched, answerMs);
      lost = 0;
    } catch (error) {
      // One that refuses connections is not there; somebody else starts it again.
      lost = (error as Error).name === "TimeoutError" ? lost + 1 : 0;
    }
    if (lost >= lostMax) {
      lost = 0;
      onHung();
    }
    next();
  };
  const next = (): void => {
    if (!isOver) timer = setTimeout(() => void ask(), pauseMs).unref();
  };
  next();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}
