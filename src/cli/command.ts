/** What a file of a command exports. */
export interface Command {
  /** One line for the list. */
  readonly about: string;
  readonly usage: string;
  /** Answers the exit code when it is done. */
  run(args: readonly string[]): Promise<number>;
}
