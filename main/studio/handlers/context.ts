/** What a handler knows of its caller. */
export interface CallContext {
  /** The connection the call came over: watches belong to it. */
  connection: string;
}
