/** `GET /v1/goals/{id}/results`: one terminal task a line, in order of completion. */
import { bearerIn, withGoal } from "../context.ts";
import { Query } from "../query.ts";
import { problem } from "../reply.ts";
import { streamed } from "../stream.ts";

export const getResults = withGoal(async (c, goal) => {
  const query = new Query(c);
  const request = { cursor: query.text("cursor"), limit: query.limit(), follow: query.flag("follow") };
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  return streamed(c, await goal.results(request, bearerIn(c)), "application/x-ndjson");
});
