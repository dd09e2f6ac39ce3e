/**
 * `npm run drover`: functions from the command line. Standard output carries
 * what was asked for, standard error what went wrong; exit code 1 says that
 * something did, and 2 that the command line was not understood.
 */
import { readCommand, USAGE } from "./functions/arguments.ts";
import { runCommand } from "./functions/commands.ts";
import { Refusal } from "./server/refusal.ts";

async function main(): Promise<void> {
  const command = readCommand(process.argv.slice(2));
  process.stdout.write(command === null ? USAGE : await runCommand(command));
}

await main().catch((error: unknown) => {
  const isRefusal = error instanceof Refusal;
  process.stderr.write(`drover: ${isRefusal ? error.message : ((error as Error).stack ?? String(error))}\n`);
  process.exitCode = isRefusal ? error.exitCode : 1;
});
