/** Enough bytes a call of `fromCharCode`, and a multiple of three; many more overflow the stack. */
const STEP = 0x6000;

export function base64Of(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.byteLength; at += STEP) {
    text += btoa(String.fromCharCode.apply(null, bytes.subarray(at, at + STEP) as unknown as number[]));
  }
  return text;
}

/** The inverse; throws where the text is no base64. */
export function bytesOf(base64: string): Uint8Array {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
