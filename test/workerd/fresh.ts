/** Runs before each test file: files share a workerd, and each begins with nothing stored and no object alive. */
import { reset } from "cloudflare:test";
import { beforeAll } from "vitest";

beforeAll(() => reset());
