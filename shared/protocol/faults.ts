/** From a schema's issues to RFC 6901 pointers with a sentence each. */
import type * as v from "valibot";
import type { Fault } from "../errors.ts";

const FAULTS_MAX = 20;
const SENTENCE_CHARS_MAX = 160;
const escape = (key: string): string => key.replaceAll("~", "~0").replaceAll("/", "~1");

interface Parsed {
  readonly issues?: readonly v.BaseIssue<unknown>[] | undefined;
}

function sentence(issue: v.BaseIssue<unknown>): string {
  if (issue.type === "strict_object" && issue.expected === "never") return "is not a property that is known here";
  if (issue.received === "undefined") return "is missing";
  const isOwnText = !issue.message.startsWith("Invalid ");
  return isOwnText ? issue.message : `must be ${issue.expected ?? "something else"}, not ${issue.received}`;
}

/** What was received may be long, and the caller has it. */
const short = (text: string): string => (text.length > SENTENCE_CHARS_MAX ? `${text.slice(0, SENTENCE_CHARS_MAX - 1)}…` : text);

/** At most 20 faults: enough to mend a request, not enough to fill the answer. */
export function faultsOf(parsed: Parsed, at: string): Fault[] {
  const issues = parsed.issues ?? [];
  return issues.slice(0, FAULTS_MAX).map((issue) => {
    const path = (issue.path ?? []).map((item) => `/${escape(String(item.key))}`).join("");
    return { pointer: at + path, detail: short(sentence(issue)) };
  });
}
