/** Sub-goals in real objects: made, run, followed, steered, through the API. */
import { describe, expect, it } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call } from "./edge-kit.ts";
import { get, goalOf, good, post, register, tasksOf, type TaskView, until } from "./goal-kit.ts";

interface WithSubgoal extends TaskView {
  readonly subgoal?: { readonly goalId: string; readonly status?: string };
}

const calls = (upstream: string, count: number, path = "/echo") =>
  Array.from({ length: count }, (_, i) => ({ call: { upstream, path: `${path}?i=${i}` } }));

const make = (body: object): Promise<GoalView> => good(post("/v1/goals", body));
const ended = async (id: string): Promise<boolean> => (await goalOf(id)).endedAt !== undefined;

async function subgoalOf(taskId: string): Promise<string> {
  let goalId: string | undefined;
  await until("the sub-goal is there", async () => {
    goalId = (await get<WithSubgoal>(`/v1/tasks/${taskId}`)).subgoal?.goalId;
    return goalId !== undefined && (await get<WithSubgoal>(`/v1/tasks/${taskId}`)).subgoal!.status !== undefined;
  });
  return goalId!;
}

describe("a task of kind goal", () => {
  it("runs its goal, which is found by itself, and has its counts as the result", async () => {
    await register("sub-run");
    const { id } = await make({
      sealed: true,
      tasks: [{ key: "inner", goal: { name: "inner", tasks: calls("sub-run", 5) } }, ...calls("sub-run", 2)],
    });
    await until("the goal has ended", () => ended(id));
    const view = await goalOf(id);
    expect(view.status).toBe("succeeded");
    expect(view.counts).toMatchObject({ succeeded: 8, total: 8 });
    expect(view.budget.spent).toMatchObject({ tasks: 8, calls: 7 });
    const [task] = (await tasksOf(id)) as WithSubgoal[];
    const body = task!.result!.body as { goalId: string; status: string; counts: object; usage: object };
    expect(body).toMatchObject({ status: "succeeded", counts: { succeeded: 5, total: 5 }, usage: { tasks: 5, calls: 5 } });
    expect(task!.subgoal!.goalId).toBe(body.goalId);
    expect(await goalOf(body.goalId)).toMatchObject({ name: "inner", status: "succeeded", parentGoalId: id, parentTaskId: task!.id });
  });

  it("is canceled with its goal, and its goal with it", async () => {
    await register("sub-cancel");
    const { id } = await make({ tasks: [{ goal: { tasks: [{ goal: { tasks: calls("sub-cancel", 3, "/hang") } }] } }] });
    const child = await subgoalOf((await tasksOf(id))[0]!.id);
    const grandchild = await subgoalOf((await tasksOf(child))[0]!.id);
    await until("the calls are open", async () => (await goalOf(grandchild)).counts.running === 3);
    await good(post(`/v1/goals/${id}/cancel`));
    await until("all is canceled", async () => (await goalOf(grandchild)).status === "canceled");
    expect((await goalOf(child)).status).toBe("canceled");
    await until("the root knows", async () => (await goalOf(id)).counts.canceled === 5);
  });

  it("stands still with the goal above, and goes on with it", async () => {
    await register("sub-pause");
    const { id } = await make({ tasks: [{ goal: { sealed: false } }] });
    const child = await subgoalOf((await tasksOf(id))[0]!.id);
    await good(post(`/v1/goals/${id}/pause`));
    await until("the sub-goal stands still", async () => (await goalOf(child)).status === "paused");
    await good(post(`/v1/goals/${child}/tasks`, { tasks: calls("sub-pause", 2) }));
    await good(post(`/v1/goals/${child}/resume`));
    expect((await goalOf(child)).counts.queued).toBe(2);
    await good(post(`/v1/goals/${id}/resume`));
    await until("its calls are done", async () => (await goalOf(child)).counts.succeeded === 2);
  });

  it("fails with the reason where its goal cannot begin", async () => {
    await register("sub-gone");
    const { id } = await make({
      sealed: true,
      tasks: [
        { key: "first", call: { upstream: "sub-gone", path: "/delay/500" } },
        { after: ["first"], goal: { tasks: calls("sub-gone", 1) } },
      ],
    });
    await call("DELETE", "/v1/upstreams/sub-gone");
    await until("the goal has ended", () => ended(id));
    const task = (await tasksOf(id))[1] as WithSubgoal & { problem: { code: string; detail: string } };
    expect(task.problem).toMatchObject({ code: "children_failed" });
    expect(task.problem.detail).toContain("sub-gone");
    expect(await goalOf(task.subgoal!.goalId)).toMatchObject({ status: "failed", problem: { code: "invalid_request" } });
  });
});

describe("POST /v1/goals with parentGoalId", () => {
  it("makes a sub-goal, open for tasks, and its parent has it as a task", async () => {
    await register("sub-post");
    const parent = await make({});
    const answer = await post(
      "/v1/goals",
      { parentGoalId: parent.id, name: "below", tasks: calls("sub-post", 2) },
      { "idempotency-key": "below-1" },
    );
    expect(answer.status).toBe(201);
    const child: GoalView = await answer.json();
    expect(answer.headers.get("location")).toBe(`/v1/goals/${child.id}`);
    expect(child).toMatchObject({ name: "below", parentGoalId: parent.id, sealed: false });
    const again = await post(
      "/v1/goals",
      { parentGoalId: parent.id, name: "below", tasks: calls("sub-post", 2) },
      { "idempotency-key": "below-1" },
    );
    expect([again.headers.get("idempotent-replayed"), (await again.json<GoalView>()).id]).toEqual(["true", child.id]);
    expect(await tasksOf(parent.id)).toHaveLength(1);
    await good(post(`/v1/goals/${child.id}/seal`));
    await until("the parent's task has ended", async () => (await goalOf(parent.id)).counts.succeeded === 3);
  });

  it("says where the goal is wrong, and that the parent is sealed or missing", async () => {
    const parent = await make({});
    const bad = await post("/v1/goals", { parentGoalId: parent.id, tasks: [{ call: { upstream: "no-such", path: "/" } }] });
    expect([bad.status, (await bad.json<{ errors: { pointer: string }[] }>()).errors[0]!.pointer]).toEqual([400, "/tasks/0/call/upstream"]);
    await good(post(`/v1/goals/${parent.id}/seal`));
    expect((await post("/v1/goals", { parentGoalId: parent.id })).status).toBe(409);
    expect((await post("/v1/goals", { parentGoalId: "goal_00000000000000000000000000" })).status).toBe(404);
  });
});
