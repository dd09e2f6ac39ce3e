/** The index of keys beside the Map that it stands for, and against keys that were chosen to hurt it. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { KeyIndex } from "../../durable-objects/goal/core/key-index.ts";

const keys = fc.array(fc.oneof(fc.string({ maxLength: 3 }), fc.string({ unit: "grapheme", maxLength: 40 })), { maxLength: 300 });

test("a key index answers as a Map would, in the order of adding, whatever room it was made with", () => {
  fc.assert(
    fc.property(keys, keys, fc.nat(400), (added, others, capacity) => {
      const index = new KeyIndex([], capacity);
      const map = new Map<string, number>();
      added.forEach((key, number) => {
        expect(index.add(key, number)).toBe(map.get(key));
        if (!map.has(key)) map.set(key, number);
      });
      expect(index.size).toBe(map.size);
      for (const key of [...added, ...others]) expect(index.get(key)).toBe(map.get(key));
      expect(index.entries()).toEqual([...map]);
      expect(new KeyIndex(index.entries()).entries()).toEqual([...map]);
    }),
  );
});

/** Keys that FNV-1a sends to one slot of 16,384, as somebody would choose them who has read the code. */
function colliding(count: number): string[] {
  const slotOf = (text: string): number => {
    let hash = 0x811c9dc5;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    return (hash ^ (hash >>> 15)) & 0x3fff;
  };
  const found: string[] = [];
  for (let n = 0; found.length < count; n++) if (slotOf(`k${n}`) === 0x1234) found.push(`k${n}`);
  return found;
}

test("keys made to fall into one slot stay apart, through growth too", () => {
  const crowd = colliding(200);
  const index = new KeyIndex();
  crowd.forEach((key, number) => expect(index.add(key, number)).toBeUndefined());
  for (let n = 0; n < 5_000; n++) index.add(`other-${n}`, n);
  crowd.forEach((key, number) => expect(index.get(key)).toBe(number));
  crowd.forEach((key, number) => expect(index.add(key, -1)).toBe(number));
  expect(index.get("other-4999")).toBe(4_999);
  expect(index.get("absent")).toBeUndefined();
});
