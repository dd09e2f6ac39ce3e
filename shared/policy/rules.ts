/**
 * What may be done, as data, and compiled to one check. A policy allows what
 * each of its lists allows; a list that is not there restricts nothing. Several
 * policies together allow what all of them allow, so adding one never widens.
 * In lists and paths `*` stands for any run of characters.
 */
export interface ApprovalRule {
  readonly upstream: string;
  readonly method?: string;
  readonly path?: string;
}

export interface Policy {
  readonly upstreams?: readonly string[];
  readonly methods?: readonly string[];
  /** Of calls, without their query. */
  readonly paths?: readonly string[];
  readonly functions?: readonly string[];
  readonly queues?: readonly string[];
  /** Levels of tasks below the goal's own. */
  readonly maxDepth?: number;
  readonly maxChildrenPerTask?: number;
  /** Calls that wait until somebody approves them. */
  readonly requireApproval?: readonly ApprovalRule[];
}

/** Policies of one origin, named as an answer names it: "the token", "the goal's policy". */
export interface Origin {
  readonly from: string;
  readonly policies: readonly Policy[];
}

/** Why something is not allowed: the rule, and a sentence that names its origin. */
export interface Denial {
  readonly rule: string;
  readonly detail: string;
}

export type Verdict = "allowed" | "needs approval" | Denial;

/** A bound that one of the policies sets. */
export interface Bound {
  readonly max: number;
  readonly from: string;
}

const ENCODED_SEPARATOR = /%2f|%5c/i;
const ENCODED = /%[0-9a-f]{2}/gi;
const UNRESERVED = /[A-Za-z0-9._~-]/;
const MEMO_MAX = 1_000;

/** Whether `pattern`, where `*` stands for any run of characters, is the whole of `text`. Greedy with one step back, so it costs at most their product. */
export function matches(pattern: string, text: string): boolean {
  let [p, t] = [0, 0];
  let [star, resume] = [-1, 0];
  while (t < text.length) {
    if (pattern[p] === "*") {
      star = p++;
      resume = t;
    } else if (p < pattern.length && pattern[p] === text[t]) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++resume;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

const isListed = (list: readonly string[], text: string): boolean => list.some((pattern) => matches(pattern, text));

/** The path without its query, with what needs no percent-encoding decoded (RFC 3986 §6.2.2), so that one resource has one spelling. */
export function plainPath(path: string): string {
  const end = path.indexOf("?");
  const bare = end < 0 ? path : path.slice(0, end);
  if (!bare.includes("%")) return bare;
  return bare.replaceAll(ENCODED, (code) => {
    const char = String.fromCharCode(Number.parseInt(code.slice(1), 16));
    return UNRESERVED.test(char) ? char : code.toUpperCase();
  });
}

/** A list of paths allows no path that hides a separator: nobody knows where its upstream would go. */
const isAllowedPath = (list: readonly string[], plain: string): boolean => !ENCODED_SEPARATOR.test(plain) && isListed(list, plain);

/** As an upstream may read it that is lax about case and slashes: what might be the same needs the same approval. */
const laxly = (plain: string): string =>
  plain
    .toLowerCase()
    .replaceAll(/\/{2,}/g, "/")
    .replace(/(?<=.)\/$/, "");

function needsApproval(globs: readonly (string | undefined)[], plain: string): boolean {
  if (ENCODED_SEPARATOR.test(plain)) return true;
  return globs.some((glob) => glob === undefined || matches(laxly(glob), laxly(plain)));
}

/** What is known of calls to one upstream with one method before their path is. */
interface Decision {
  readonly denial: Denial | null;
  readonly paths: readonly { readonly from: string; readonly list: readonly string[] }[];
  /** Paths that need approval; undefined for every path. */
  readonly approvals: readonly (string | undefined)[];
}

const denied = (from: string, rule: string, what: string): Denial => ({ rule, detail: `${from} does not allow ${what} (rule "${rule}")` });

export class Rules {
  readonly #origins: readonly Origin[];
  readonly #all: readonly { readonly from: string; readonly policy: Policy }[];
  readonly #calls = new Map<string, Map<string, Decision>>();
  readonly depth: Bound | null;
  readonly children: Bound | null;

  constructor(origins: readonly Origin[]) {
    this.#origins = origins;
    this.#all = origins.flatMap(({ from, policies }) => policies.map((policy) => ({ from, policy })));
    this.depth = this.#least("maxDepth");
    this.children = this.#least("maxChildrenPerTask");
  }

  /** A call whose policy says nothing of paths costs two lookups. */
  call(upstream: string, method: string, path: string): Verdict {
    const { denial, paths, approvals } = this.#decided(upstream, method);
    if (denial !== null) return denial;
    if (paths.length === 0 && approvals.length === 0) return "allowed";
    const plain = plainPath(path);
    const refused = paths.find(({ list }) => !isAllowedPath(list, plain));
    if (refused !== undefined) return denied(refused.from, "paths", `the path "${plain.slice(0, 128)}"`);
    return approvals.length > 0 && needsApproval(approvals, plain) ? "needs approval" : "allowed";
  }

  /** What is allowed in a goal inside, `levels` of tasks below: of all this, what its own policy allows too. */
  below(own: readonly Policy[], levels: number): Rules {
    const inherited = this.#origins.map(({ from, policies }) => ({ from, policies: narrow(policies, [], levels) }));
    return new Rules(own.length === 0 ? inherited : [...inherited, { from: "the sub-goal's policy", policies: own }]);
  }

  /** Neither this nor a run is ever asked about: what they call is. */
  work(queue: string): "allowed" | Denial {
    return this.#listed("queues", queue, `the queue "${queue}"`) ?? "allowed";
  }

  run(name: string): "allowed" | Denial {
    return this.#listed("functions", name, `the function "${name}"`) ?? "allowed";
  }

  #decided(upstream: string, method: string): Decision {
    const known = this.#calls.get(upstream)?.get(method);
    if (known !== undefined) return known;
    const decision = this.#decide(upstream, method);
    if (this.#calls.size >= MEMO_MAX) this.#calls.clear();
    const methods = this.#calls.get(upstream) ?? new Map<string, Decision>();
    this.#calls.set(upstream, methods.size >= MEMO_MAX ? methods : methods.set(method, decision));
    return decision;
  }

  #decide(upstream: string, method: string): Decision {
    const denial =
      this.#listed("upstreams", upstream, `the upstream "${upstream}"`) ?? this.#listed("methods", method, `the method ${method}`);
    const paths = this.#all.flatMap(({ from, policy }) => (policy.paths === undefined ? [] : [{ from, list: policy.paths }]));
    const rules = this.#all.flatMap(({ policy }) => policy.requireApproval ?? []);
    const approvals = rules.filter((rule) => matches(rule.upstream, upstream) && matches(rule.method ?? "*", method));
    return { denial, paths, approvals: approvals.map(({ path }) => path) };
  }

  #listed(rule: "upstreams" | "methods" | "functions" | "queues", name: string, what: string): Denial | null {
    for (const { from, policy } of this.#all) {
      const list = policy[rule];
      if (list !== undefined && !isListed(list, name)) return denied(from, rule, what);
    }
    return null;
  }

  #least(rule: "maxDepth" | "maxChildrenPerTask"): Bound | null {
    let least: Bound | null = null;
    for (const { from, policy } of this.#all) {
      const max = policy[rule];
      if (max !== undefined && (least === null || max < least.max)) least = { max, from };
    }
    return least;
  }
}

/** One check of everything that has a say; null where nobody restricts anything. */
export function rulesOf(origins: readonly Origin[]): Rules | null {
  const speaking = origins.filter(({ policies }) => policies.length > 0);
  return speaking.length === 0 ? null : new Rules(speaking);
}

/** The check of a goal inside, as `Rules.below`; null where nobody restricts anything. */
export function rulesBelow(rules: Rules | null, own: Policy | undefined, levels: number): Rules | null {
  const policies = own === undefined ? [] : [own];
  return rules === null ? rulesOf([{ from: "the sub-goal's policy", policies }]) : rules.below(policies, levels);
}

/** The policies of a goal that is made inside another one, `levels` of tasks below it: what the parent may, and of that what is its own. */
export function narrow(parents: readonly Policy[], own: readonly Policy[], levels: number): readonly Policy[] {
  const inherited = parents.map((policy) => {
    return policy.maxDepth === undefined ? policy : { ...policy, maxDepth: Math.max(0, policy.maxDepth - levels) };
  });
  return [...inherited, ...own];
}
