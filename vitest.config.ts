/**
 * Two projects in one run. "workerd" runs inside the Workers runtime, against
 * the deployment entry of wrangler.toml; "node" runs what needs a process: the
 * pure parts, the simulator and servers started as a user starts them.
 */
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

// Tests run offline: nothing is asked of the network, nothing is reported to it.
process.env["CLOUDFLARE_CF_FETCH_ENABLED"] = "false";
process.env["WRANGLER_SEND_METRICS"] = "false";

// Wrangler wants to find the required secret in the environment; the binding below is what counts.
const ROOT_TOKEN = "test-root-token-0123456789";
process.env["ROOT_TOKEN"] = ROOT_TOKEN;

export default defineConfig({
  test: {
    // Two cores is what a small CI machine has; more workers only wait for one another.
    maxWorkers: 2,
    projects: [
      {
        plugins: [
          cloudflareTest({
            wrangler: { configPath: "./wrangler.toml" },
            miniflare: { bindings: { ROOT_TOKEN, EXECUTOR_TRANSPORT: "loopback" } },
          }),
        ],
        test: {
          name: "workerd",
          include: ["test/workerd/**/*.test.ts"],
          // A real HTTP server outside workerd; tests get its address by `inject("upstreamUrl")`.
          globalSetup: ["./test/workerd/upstream-setup.ts"],
          // A workerd for each file would take longer to start than most of them run.
          isolate: false,
          setupFiles: ["./test/workerd/fresh.ts"],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: "node",
          include: ["test/{core,sim,contract,e2e}/**/*.test.ts", "test/*.test.ts"],
          environment: "node",
          pool: "forks",
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
