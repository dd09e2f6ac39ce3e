/**
 * The tenant's rows. Every method is one synchronous turn, so each is atomic.
 * An object that was never written to is read as empty and stays unwritten:
 * the tables are made just before the first write.
 */
import type { Failure } from "../../shared/errors.ts";
import { type Amounts, type Bounds, NOTHING, UNBOUNDED } from "../../shared/policy/account.ts";
import type { Counts, GoalStatus } from "../../shared/protocol/goal.ts";
import type { FunctionVersion } from "../../shared/protocol/function.ts";
import type { Policy } from "../../shared/policy/rules.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Result } from "../../shared/result.ts";
import { ok } from "../../shared/result.ts";
import type { GoalReport, GoalsQuery, IdempotencyKey, Registry } from "../../shared/rpc.ts";
import { isEmpty, migrate } from "../kit/migrate.ts";
import { storedReply, storeReply } from "../kit/replies.ts";
import { exec } from "../kit/sql.ts";
import { MIGRATIONS } from "./schema.ts";

type Row = Record<string, SqlStorageValue>;

/** Sorts after every goal's id. */
const ID_END = "goal_~";

const reportOf = (row: Row): GoalReport => ({
  goalId: row["goal_id"] as string,
  name: row["name"] as string,
  labels: JSON.parse(row["labels"] as string) as Record<string, string>,
  status: row["status"] as GoalStatus,
  createdAtMs: row["created_at_ms"] as number,
  deadlineAtMs: row["deadline_at_ms"] as number | null,
  endedAtMs: row["ended_at_ms"] as number | null,
  sealed: row["sealed"] === 1,
  counts: JSON.parse(row["counts"] as string) as Counts,
});

export class TenantStore {
  readonly #storage: DurableObjectStorage;
  readonly #sql: SqlStorage;
  #isOpen = false;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    this.#sql = storage.sql;
  }

  /** Whether there is anything to read. Brings an older schema up to date. */
  #hasRows(): boolean {
    if (!this.#isOpen && !isEmpty(this.#sql)) this.#open();
    return this.#isOpen;
  }

  #open(): void {
    if (this.#isOpen) return;
    migrate(this.#storage, MIGRATIONS);
    this.#isOpen = true;
  }

  registry(): Registry {
    if (!this.#hasRows()) return { version: 0, upstreams: [] };
    const version = this.#sql.exec("SELECT version FROM registry").toArray()[0]?.["version"] as number | undefined;
    const rows = this.#sql.exec("SELECT spec FROM upstreams ORDER BY name").toArray();
    const upstreams = rows.map((row) => JSON.parse(row["spec"] as string) as Upstream);
    const policy = this.#sql.exec("SELECT policy FROM rights").toArray()[0]?.["policy"] as string | null | undefined;
    const functions = this.#sql.exec("SELECT spec FROM functions ORDER BY name").toArray();
    const versions = functions.map((row) => JSON.parse(row["spec"] as string) as FunctionVersion);
    return {
      version: version ?? 0,
      upstreams,
      ...(versions.length > 0 && { functions: versions }),
      ...(typeof policy === "string" && { policy: JSON.parse(policy) as Policy }),
    };
  }

  putPolicy(policy: Policy | null, version: number): void {
    this.#open();
    const text = policy === null ? null : JSON.stringify(policy);
    this.#storage.transactionSync(() => {
      const upsert = "INSERT INTO rights(id, epoch, policy) VALUES (0, 0, ?) ON CONFLICT(id) DO UPDATE SET policy = excluded.policy";
      exec(this.#sql, upsert, text);
      this.#setVersion(version);
    });
  }

  tokenEpoch(): number {
    if (!this.#hasRows()) return 0;
    return (this.#sql.exec("SELECT epoch FROM rights").toArray()[0]?.["epoch"] as number | undefined) ?? 0;
  }

  setTokenEpoch(epoch: number): void {
    this.#open();
    exec(this.#sql, "INSERT INTO rights(id, epoch) VALUES (0, ?) ON CONFLICT(id) DO UPDATE SET epoch = excluded.epoch", epoch);
  }

  putUpstream(name: string, spec: string, version: number): void {
    this.#open();
    this.#storage.transactionSync(() => {
      exec(this.#sql, "INSERT INTO upstreams(name, spec) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET spec = excluded.spec", name, spec);
      this.#setVersion(version);
    });
  }

  deleteUpstream(name: string, version: number): void {
    this.#open();
    this.#storage.transactionSync(() => {
      exec(this.#sql, "DELETE FROM upstreams WHERE name = ?", name);
      this.#setVersion(version);
    });
  }

  putFunction(made: FunctionVersion, version: number): void {
    this.#open();
    this.#storage.transactionSync(() => {
      const upsert = "INSERT INTO functions(name, spec) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET spec = excluded.spec";
      exec(this.#sql, upsert, made.name, JSON.stringify(made));
      this.#setVersion(version);
    });
  }

  deleteFunction(name: string, version: number): void {
    this.#open();
    this.#storage.transactionSync(() => {
      exec(this.#sql, "DELETE FROM functions WHERE name = ?", name);
      this.#setVersion(version);
    });
  }

  #setVersion(version: number): void {
    const upsert = "INSERT INTO registry(id, version) VALUES (0, ?) ON CONFLICT(id) DO UPDATE SET version = excluded.version";
    exec(this.#sql, upsert, version);
  }

  /** The goal id that the key belongs to: the proposed one if the key is new. */
  claimGoalId(idempotency: IdempotencyKey, proposedGoalId: string): Result<string, Failure> {
    this.#open();
    const stored = storedReply(this.#sql, idempotency);
    if (!stored.ok) return stored;
    if (stored.value !== null) return ok(stored.value);
    this.#storage.transactionSync(() => storeReply(this.#sql, idempotency, proposedGoalId));
    return ok(proposedGoalId);
  }

  goal(goalId: string): GoalReport | null {
    if (!this.#hasRows()) return null;
    const row = this.#sql.exec("SELECT * FROM goals WHERE goal_id = ?", goalId).toArray()[0];
    return row === undefined ? null : reportOf(row);
  }

  putGoal(report: GoalReport): void {
    this.#open();
    exec(
      this.#sql,
      `INSERT INTO goals(goal_id, name, labels, status, created_at_ms, deadline_at_ms, ended_at_ms, sealed, counts)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT(goal_id) DO UPDATE SET name = excluded.name, labels = excluded.labels, status = excluded.status,
         deadline_at_ms = excluded.deadline_at_ms, ended_at_ms = excluded.ended_at_ms, sealed = excluded.sealed, counts = excluded.counts`,
      report.goalId,
      report.name,
      JSON.stringify(report.labels),
      report.status,
      report.createdAtMs,
      report.deadlineAtMs,
      report.endedAtMs,
      report.sealed ? 1 : 0,
      JSON.stringify(report.counts),
    );
  }

  budget(): { readonly limit: Bounds; readonly spent: Amounts } {
    const row = this.#hasRows() ? this.#sql.exec("SELECT limits, spent FROM budget").toArray()[0] : undefined;
    if (row === undefined) return { limit: UNBOUNDED, spent: NOTHING };
    return { limit: JSON.parse(row["limits"] as string) as Bounds, spent: JSON.parse(row["spent"] as string) as Amounts };
  }

  grants(): (readonly [string, Amounts])[] {
    if (!this.#hasRows()) return [];
    const rows = this.#sql.exec("SELECT goal_id, totals FROM grants").toArray();
    return rows.map((row) => [row["goal_id"] as string, JSON.parse(row["totals"] as string) as Amounts]);
  }

  putGrant(goalId: string, totals: Amounts): void {
    this.#open();
    const upsert = "INSERT INTO grants(goal_id, totals) VALUES (?, ?) ON CONFLICT(goal_id) DO UPDATE SET totals = excluded.totals";
    exec(this.#sql, upsert, goalId, JSON.stringify(totals));
  }

  deleteGrant(goalId: string): void {
    exec(this.#sql, "DELETE FROM grants WHERE goal_id = ?", goalId);
  }

  /** `version`: of the registry from now on, which says what is bounded. */
  putLimit(limit: Bounds, version: number): void {
    const { spent } = this.budget();
    this.#open();
    this.#storage.transactionSync(() => {
      this.#putBudget(limit, spent);
      this.#setVersion(version);
    });
  }

  isClosed(goalId: string): boolean {
    return this.#hasRows() && this.#sql.exec("SELECT 1 FROM goals WHERE goal_id = ? AND closed = 1", goalId).toArray().length > 0;
  }

  /** The goal's account is closed: `spent` is the tenant's total with it. The goal is in the directory. */
  close(goalId: string, spent: Amounts): void {
    const { limit } = this.budget();
    this.#storage.transactionSync(() => {
      this.#putBudget(limit, spent);
      exec(this.#sql, "DELETE FROM grants WHERE goal_id = ?", goalId);
      exec(this.#sql, "UPDATE goals SET closed = 1 WHERE goal_id = ?", goalId);
    });
  }

  #putBudget(limit: Bounds, spent: Amounts): void {
    const upsert = `INSERT INTO budget(id, limits, spent) VALUES (0, ?, ?)
       ON CONFLICT(id) DO UPDATE SET limits = excluded.limits, spent = excluded.spent`;
    exec(this.#sql, upsert, JSON.stringify(limit), JSON.stringify(spent));
  }

  forgetGoal(goalId: string): void {
    if (this.#hasRows()) exec(this.#sql, "DELETE FROM goals WHERE goal_id = ?", goalId);
  }

  /** Newest first, below the cursor; at most one more than the limit, which tells whether a page follows. */
  goals(query: GoalsQuery): GoalReport[] {
    if (!this.#hasRows()) return [];
    const below = query.cursor ?? ID_END;
    const rows =
      query.status === undefined
        ? this.#sql.exec("SELECT * FROM goals WHERE goal_id < ? ORDER BY goal_id DESC LIMIT ?", below, query.limit + 1)
        : this.#sql.exec(
            "SELECT * FROM goals WHERE status = ? AND goal_id < ? ORDER BY goal_id DESC LIMIT ?",
            query.status,
            below,
            query.limit + 1,
          );
    return rows.toArray().map(reportOf);
  }
}
