/** `GET /v1/goals/{id}/events`: server-sent events; `Last-Event-ID` goes on where an earlier stream ended. */
import { failure } from "../../../shared/errors.ts";
import { KEY_CHARS_MAX } from "../../../shared/limits.ts";
import { bearerIn, withGoal } from "../context.ts";
import { Query } from "../query.ts";
import { problem } from "../reply.ts";
import { streamed } from "../stream.ts";

export const getEvents = withGoal(async (c, goal) => {
  const query = new Query(c);
  const tasks = query.flag("tasks");
  const fault = query.failure();
  if (fault !== null) return problem(fault);
  const lastEventId = c.req.header("last-event-id");
  if (lastEventId !== undefined && lastEventId.length > KEY_CHARS_MAX) {
    return problem(failure("invalid_request", "the Last-Event-ID must be the id of an event of this stream"));
  }
  return streamed(c, await goal.events({ lastEventId, tasks }, bearerIn(c)), "text/event-stream");
});
