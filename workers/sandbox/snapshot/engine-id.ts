/**
 * Names the engine, its prelude and the format of images. An image holds
 * addresses in the engine's memory, so one of another engine must never be
 * restored. `test/contract/engine.test.ts` says what it must be.
 */
export const ENGINE_ID = "quickjs-ng-7f51fc7b6fc4001ffffcc57b-3";
