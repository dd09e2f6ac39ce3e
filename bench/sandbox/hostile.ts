/** What hostile or broken handlers do, as bodies of `async (input, ctx) => { … }`: each must end by itself, within its own limits. */
export const HOSTILE_BODIES: readonly string[] = [
  "for (;;);",
  'return /^(a+)+$/.test("a".repeat(40) + "b");',
  'const all = []; for (;;) all.push(new Array(1000).fill("x"));',
  'let s = "x"; for (;;) s += s;',
  "const f = () => f() + 1; return f();",
  "return new Promise(() => {});",
  "const again = () => Promise.resolve().then(again); return again();",
  'const s = "a".repeat(4e6); let n = 0; for (let i = 0; i < 1000; i++) n += s.indexOf("ab"); return n;',
  'const s = "[" + "[1,2],".repeat(100000) + "1]"; for (let i = 0; i < 500; i++) JSON.parse(s);',
  'return "x".repeat(10e6);',
  'for (;;) ctx.call("real", { path: "/d20/1" });',
  "Object.prototype.toJSON = () => { throw 1; }; Array.prototype[Symbol.iterator] = null; Promise.prototype.then = null; throw 1;",
];
