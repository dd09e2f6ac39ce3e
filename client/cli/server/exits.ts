/** How long to wait before a workerd that has exited is started again. */
const PAUSES_MS = [0, 250, 500, 1_000, 2_000, 4_000, 8_000];
/** A workerd that ran this long was well; its exit counts as the first. */
const HEALTHY_MS = 10_000;

/** After one that ran `ranMs`, and `exits` before it in a row. `pauseMs` is null where it is not worth another try. */
export function pauseAfter(exits: number, ranMs: number): { readonly exits: number; readonly pauseMs: number | null } {
  const inRow = ranMs > HEALTHY_MS ? 1 : exits + 1;
  return { exits: inRow, pauseMs: PAUSES_MS[inRow - 1] ?? null };
}
