/** A global of the engine that can be written. */
interface IntegerGlobal {
  value: number;
}

/** What the engine exports, as far as it is used here. Values of the guest are numbers: addresses of boxes. */
export interface EngineExports {
  readonly memory: WebAssembly.Memory;
  readonly __stack_pointer: IntegerGlobal;
  /** What is left to run; below zero the engine traps. See scripts/meter-engine.ts. */
  readonly fuel: IntegerGlobal;
  _initialize(): void;
  wasm_malloc(bytes: number): number;
  wasm_free(address: number): void;
  qjs_init(): number;
  qjs_set_interrupt_handler(isSet: number): void;
  qjs_set_max_stack_size(bytes: number): void;
  qjs_set_memory_limit(bytes: number): void;
  qjs_run_gc(): void;
  qjs_get_context_ptr(): number;
  qjs_eval(text: number, bytes: number, name: number, flags: number): number;
  qjs_compile(text: number, bytes: number, name: number, flags: number, stripping: number, length: number): number;
  qjs_eval_bytecode(code: number, bytes: number): number;
  qjs_is_exception(value: number): number;
  qjs_get_exception(): number;
  qjs_is_job_pending(): number;
  qjs_execute_pending_job(): number;
  qjs_promise_state(promise: number): number;
  qjs_promise_result(promise: number): number;
  qjs_call(callee: number, self: number, count: number, values: number): number;
  qjs_get_global(): number;
  qjs_get_undefined(): number;
  qjs_get_true(): number;
  qjs_get_false(): number;
  qjs_get_float64(value: number): number;
  qjs_new_number(value: number): number;
  qjs_new_string(text: number, bytes: number): number;
  qjs_new_host_function(name: number, bytes: number, count: number): number;
  qjs_get_prop_string(object: number, name: number): number;
  qjs_set_prop_string(object: number, name: number, value: number): void;
  qjs_get_string_len(value: number, length: number): number;
  qjs_free_cstring(text: number): void;
  qjs_free_value(value: number): void;
}
