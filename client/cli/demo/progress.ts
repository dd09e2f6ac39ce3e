/** How the demo looks: calm lines, and a bar where the output is a terminal. */
import { styleText } from "node:util";

const BAR_WIDTH = 40;
const LABEL_WIDTH = 12;
/** Without a terminal, one line for each tenth. */
const STEPS = 10;

const interactive = process.stdout.isTTY;

export function faint(text: string): string {
  return styleText("dim", text, { stream: process.stdout });
}

export function print(text = ""): void {
  process.stdout.write(text === "" ? "\n" : `  ${text}\n`);
}

/** One labelled line. */
export function row(label: string, text: string): void {
  print(`${faint(label.padEnd(LABEL_WIDTH))}${text}`);
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

export function duration(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(2)} s`;
}

export interface Bar {
  update(done: number): void;
  /** Leaves the terminal on a line of its own. */
  end(): void;
}

/** A bar that fills up to `total`. */
export function startBar(total: number): Bar {
  let step = -1;
  let drawn = false;
  return {
    update(done) {
      const share = Math.min(1, done / total);
      if (interactive) {
        const full = Math.round(share * BAR_WIDTH);
        const bar = "█".repeat(full) + faint("░".repeat(BAR_WIDTH - full));
        process.stdout.write(`\r  ${bar}  ${count(done)} of ${count(total)} `);
        drawn = true;
      } else if (Math.floor(share * STEPS) > step) {
        step = Math.floor(share * STEPS);
        row("done", `${count(done)} of ${count(total)}`);
      }
    },
    end() {
      if (drawn) process.stdout.write("\n");
      drawn = false;
    },
  };
}
