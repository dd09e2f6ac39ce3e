/** Rows that the platform would refuse: local storage takes them, so the guard and the cutting are held to its bound here. */
import { runInDurableObject } from "cloudflare:test";
import { expect, test } from "vitest";
import { exec } from "../../durable-objects/kit/sql.ts";
import { LineKeeper, rowsOf } from "../../durable-objects/goal/lines.ts";
import type { Goal } from "../../durable-objects/goal/object.ts";
import { PLATFORM_ROW_BYTES_MAX, ROW_CHARS_MAX } from "../../shared/limits.ts";
import { goalStub, newGoalId } from "./goal-kit.ts";

const bytesOf = (text: string): number => new TextEncoder().encode(text).byteLength;

test("changes and results that share a row fit it together, whatever their script, and none is lost", () => {
  const keeper = new LineKeeper(1);
  for (let n = 0; n < 40; n++) keeper.keep(`[${n},1,0,200,0,1,2,"${"語".repeat(60_000)}"]\n`);
  for (const changes of ["", "x", "語".repeat(3_000_000), "x🐳".repeat(500_000), "🐳".repeat(ROW_CHARS_MAX)]) {
    const rows = rowsOf(changes, keeper.rows);
    for (const { piece, results } of rows) expect(bytesOf(piece) + bytesOf(results)).toBeLessThan(PLATFORM_ROW_BYTES_MAX - 1_000);
    // As storage gives it back: half a character would not survive.
    const kept = rows.map(({ piece }) => new TextDecoder().decode(new TextEncoder().encode(piece))).join("");
    expect(kept === changes).toBe(true);
    expect(rows.map(({ results }) => results).filter((results) => results !== "")).toEqual(keeper.rows.map((lines) => lines.join("\n")));
  }
  expect(rowsOf("", [[]])).toEqual([{ piece: "", results: "" }]);
});

test("the guard counts the bytes of a whole row, not the characters of each value", async () => {
  await runInDurableObject(goalStub(newGoalId()), (_goal: Goal, ctx: DurableObjectState) => {
    const { sql } = ctx.storage;
    sql.exec("CREATE TABLE t(a TEXT, b TEXT)");
    const third = Math.floor(PLATFORM_ROW_BYTES_MAX / 3);
    expect(() => exec(sql, "INSERT INTO t VALUES (?, ?)", "語".repeat(third / 2), "語".repeat(third / 2))).not.toThrow();
    expect(() => exec(sql, "INSERT INTO t VALUES (?, ?)", "語".repeat(third / 2 + 1), "語".repeat(third / 2 + 1))).toThrow(
      "more than the platform takes",
    );
    expect(() => exec(sql, "INSERT INTO t VALUES (?, ?)", "x".repeat(third), "x".repeat(third))).not.toThrow();
  });
});
