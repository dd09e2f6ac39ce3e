/** Result lines: the integers are read without looking into the payload, whatever the payload holds. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { formatLine, OUTCOMES, parseLineHead, payloadOf, type LineHead } from "../../shared/protocol/line.ts";

const timeMs = fc.integer({ min: 0, max: 8_640_000_000_000_000 });
const small = fc.integer({ min: 0, max: 999_999 });
const numbers = fc.record({
  task: small,
  attempt: small,
  status: fc.integer({ min: 0, max: 599 }),
  retryAfterMs: small,
  startedAtMs: timeMs,
  endedAtMs: timeMs,
  tokens: small,
  costMicros: small,
});
const ofCalls = fc.record({ outcome: fc.constantFrom(...OUTCOMES.slice(0, OUTCOMES.indexOf("returned"))), calls: fc.constant(0) });
const ofRuns = fc.record({ outcome: fc.constantFrom(...OUTCOMES.slice(OUTCOMES.indexOf("returned"))), calls: small });
const beaten = fc.record({ isFirst: fc.boolean(), startedAtMs: timeMs, status: fc.integer({ min: 0, max: 599 }) });
const ofHedged = fc.tuple(ofCalls, beaten).map(([who, other]) => ({ ...who, beaten: other }));
const ofPrepaid = fc.tuple(ofRuns, small, small, small).map(([who, ...drawn]) => ({ ...who, drawn: [0, ...drawn] }));
const head: fc.Arbitrary<LineHead> = fc
  .tuple(numbers, fc.oneof(ofCalls, ofRuns, ofHedged, ofPrepaid))
  .map(([some, who]) => ({ ...some, ...who }));

test("a line gives back its head and its payload, with or without the newline", () => {
  fc.assert(
    fc.property(head, fc.json(), (given, payload) => {
      const line = formatLine(given, payload);
      for (const text of [line, line.trimEnd()]) {
        expect(parseLineHead(text)).toEqual(given);
        expect(payloadOf(text)).toBe(payload);
      }
    }),
  );
});

const HEAD: LineHead = {
  task: 3,
  attempt: 1,
  outcome: "answered",
  status: 200,
  retryAfterMs: 0,
  startedAtMs: 10,
  endedAtMs: 12,
  tokens: 7,
  costMicros: 9,
  calls: 0,
};

test.for(['{"body":"a,b],[1,2]\\n"}', "[[1,2],[3,4]]", '"],"', '{"a":{"b":[",","]"]}}', "null"])(
  "brackets, commas and quotes in a payload do not end it: %s",
  (payload) => {
    const line = formatLine(HEAD, payload);
    expect(payloadOf(line)).toBe(payload);
    expect(line.indexOf("\n")).toBe(line.length - 1);
    expect(JSON.parse(line)).toEqual([3, 1, 0, 200, 0, 10, 12, 7, 9, JSON.parse(payload)]);
  },
);

test.for([
  "",
  "[1,2]",
  "hello",
  '{"task":1}',
  "[-1,1,0,200,0,1,2,0,null]",
  "[1.5,1,0,200,0,1,2,0,null]",
  "[1a,1,0,200,0,1,2,0,null]",
  "[1:,1,0,200,0,1,2,0,null]",
  "[1,1,0,200,0,1,",
  "[1,1,99,200,0,1,2,0,null]",
])("what no executor writes is refused: %s", (line) => {
  expect(() => parseLineHead(line)).toThrow(/not a result line|outcome must be known/);
});
