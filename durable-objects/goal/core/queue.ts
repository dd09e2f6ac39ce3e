/**
 * A first-in-first-out queue of task numbers. Entries whose task has meanwhile
 * ended stay in it and are dropped when they reach the head, so cancelling
 * thousands of queued tasks touches no queue.
 */
export interface Queue {
  items: number[];
  head: number;
}

const COMPACT_AT = 1_024;

export function newQueue(items: number[] = []): Queue {
  return { items, head: 0 };
}

export function push(queue: Queue, task: number): void {
  queue.items.push(task);
}

export function peek(queue: Queue): number | undefined {
  return queue.items[queue.head];
}

export function shift(queue: Queue): void {
  queue.head++;
  if (queue.head < COMPACT_AT || queue.head * 2 < queue.items.length) return;
  queue.items = queue.items.slice(queue.head);
  queue.head = 0;
}

/** What is in the queue, the head first. */
export function contents(queue: Queue): number[] {
  return queue.items.slice(queue.head);
}
