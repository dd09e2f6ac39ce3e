/** The bundler gives modules of WebAssembly compiled. */
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export { module as default };
}
