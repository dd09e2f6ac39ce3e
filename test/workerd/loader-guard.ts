/**
 * A Worker Loader that refuses as the platform does: no more than `max`
 * distinct dynamic Workers with calls in flight. workerd takes any number.
 */

export interface Guard {
  readonly loader: WorkerLoader;
  /** The most that were in flight at once. */
  readonly most: () => number;
}

export function guard(loader: WorkerLoader, max: number): Guard {
  const inFlight = new Map<string, number>();
  let most = 0;
  let unnamed = 0;

  async function counted<T>(name: string, call: () => Promise<T>): Promise<T> {
    if (!inFlight.has(name) && inFlight.size >= max) throw new Error(`Too many concurrent dynamic Workers: ${max} are in flight`);
    inFlight.set(name, (inFlight.get(name) ?? 0) + 1);
    most = Math.max(most, inFlight.size);
    try {
      return await call();
    } finally {
      const left = inFlight.get(name)! - 1;
      if (left === 0) inFlight.delete(name);
      else inFlight.set(name, left);
    }
  }

  function guarded(name: string, stub: WorkerStub): WorkerStub {
    const getEntrypoint = (): unknown => {
      const entrypoint = stub.getEntrypoint() as unknown as Record<string, (...parts: unknown[]) => Promise<unknown>>;
      return new Proxy(entrypoint, {
        get:
          (_, method: string) =>
          (...parts: unknown[]) =>
            counted(name, () => entrypoint[method]!(...parts)),
      });
    };
    return { getEntrypoint } as unknown as WorkerStub;
  }

  return {
    most: () => most,
    loader: {
      get: (name, code) => guarded(name ?? `unnamed ${unnamed++}`, loader.get(name, code)),
      load: (code) => guarded(`unnamed ${unnamed++}`, loader.load(code)),
    },
  };
}
