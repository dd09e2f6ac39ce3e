/**
 * The demo's goal: 5,000 submissions in one request. Ten parents with a hundred
 * children each, tasks on their own, and 500 submissions that repeat others.
 */
export const SUBMITTED = 5_000;
export const REPEATED = 500;
export const PARENTS = 10;
export const CHILDREN_PER_PARENT = 100;
export const DISTINCT = SUBMITTED - REPEATED;
/** Every so many submissions one repeats an earlier one. */
const REPEAT_EVERY = SUBMITTED / REPEATED;

interface DemoTask {
  readonly key: string;
  readonly parentTaskId?: string;
  readonly call: { readonly upstream: string; readonly method: "GET"; readonly path: string };
}

function task(key: string, parentTaskId?: string): DemoTask {
  const call = { upstream: "sample", method: "GET", path: `/pages/${key}` } as const;
  return parentTaskId === undefined ? { key, call } : { key, parentTaskId, call };
}

function distinctTasks(): DemoTask[] {
  const parents = Array.from({ length: PARENTS }, (_, p) => task(`topic-${p}`));
  const children = parents.flatMap((parent) =>
    Array.from({ length: CHILDREN_PER_PARENT }, (_, c) => task(`${parent.key}-page-${c}`, parent.key)),
  );
  const others = Array.from({ length: DISTINCT - PARENTS - children.length }, (_, n) => task(`page-${n}`));
  return [...parents, ...children, ...others];
}

/** The body of the one request. The repeats are spread among the rest. */
export function demoBody(): string {
  const distinct = distinctTasks();
  const tasks = Array.from({ length: SUBMITTED }, (_, n) => {
    const repeats = Math.floor(n / REPEAT_EVERY);
    const isRepeat = n % REPEAT_EVERY === REPEAT_EVERY - 1;
    return distinct[isRepeat ? (repeats * 7) % (n - repeats) : n - repeats]!;
  });
  return JSON.stringify({ tasks });
}
