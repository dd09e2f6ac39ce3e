/**
 * The objects that executors talk to, through a batch's home in another
 * process. It looks like the namespaces that it stands for, of which a batch
 * needs one goal and one gate: what runs in an executor need not know in which
 * process it is.
 */
import type { GoalAskRpc, HandsRpc, ImageRpc } from "../../shared/rpc-functions.ts";
import type { HomeRpc } from "../../shared/rpc-processes.ts";
import type { GoalRpc } from "../../shared/rpc.ts";
import type { ExecutorEnv } from "../executor/functions/runtime.ts";

interface Objects<Rpc> {
  idFromName(name: string): string;
  get(name: string): Rpc;
}

const objects = <Rpc>(get: (name: string) => Rpc): Objects<Rpc> => ({ idFromName: (name) => name, get });

export function envThrough(home: HomeRpc, LOADER: WorkerLoader): ExecutorEnv {
  const GOAL = objects<GoalAskRpc & Pick<GoalRpc, "settle">>(() => ({
    ask: (asks) => home.ask(asks),
    settle: (lines) => home.settle(lines),
  }));
  const GATE = objects<HandsRpc>(() => ({ hand: ({ waitMs }) => home.hand(waitMs) }));
  const IMAGE = objects<Omit<ImageRpc, "putBundle" | "remove">>((version) => ({
    bundle: () => home.bundle(version),
    image: (engineId) => home.image(version, engineId),
    putImage: (image) => home.putImage(version, image),
  }));
  return { GOAL, GATE, IMAGE, LOADER } as unknown as ExecutorEnv;
}
