/** What a gate lends for one call. */
import type { HandTerms } from "../../../shared/rpc-functions.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";

export interface Permit {
  readonly id: number;
  /** The place of the origin that it is for. */
  readonly place: number;
}

/** Leave to make one call, paid for. */
export interface Leave extends Permit {
  readonly terms: HandTerms;
  /** What it is paid from; null: as its upstream says. */
  readonly draw: number | null;
  /** Of the gate's life that it is from. */
  readonly life: number;
  /** For a second try of a call: nobody else uses it afterwards. */
  readonly isSecond?: boolean;
  /** Called when the permit ends. */
  cut: (() => void) | null;
}

/** A key that is the caller's now, or what was answered before. */
export type Claim = { readonly id: number; readonly life: number } | { readonly replay: WholeAnswer };
