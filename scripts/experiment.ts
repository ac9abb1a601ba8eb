/**
 * The shape of everything `npm run prove` and `npm run bench` can run: one file per experiment in
 * `prove/` or `bench/`, exporting `experiment`. The file's name is the experiment's name.
 */
export interface Context {
  /** The long form was asked for; the short one takes a minute at most. */
  readonly long: boolean;
  /** Further words of the command line: `--guard redis` is `{ guard: 'redis' }`. */
  readonly options: Readonly<Record<string, string | true>>;
  /** A fresh directory, removed afterwards. */
  readonly scratch: string;
  /** The seed to use; printed, and given again by `--seed`. */
  readonly seed: number;
  /** A line of the readable report. */
  log(line: string): void;
  /** Runs at the end, last registered first, whatever happened. */
  cleanup(undo: () => unknown): void;
}

export type Figures = Readonly<Record<string, number | string | boolean>>;

export interface Report {
  readonly ok: boolean;
  readonly figures: Figures;
  /** The same without our part: what breaks then. `broke` must be true for `ok`. */
  readonly control: Figures;
}

export interface Experiment {
  /** One line for `--list`. */
  readonly about: string;
  /** Debian packages it needs: command to look for → package that brings it. */
  readonly needs?: Readonly<Record<string, string>>;
  run(context: Context): Promise<Report>;
}

/**
 * A story of `examples/`: a file that exports `story`, read in five minutes and run by
 * `npm run example -- NAME`. It tells what happens through `context.log`; its report is printed
 * with the guard (`figures`) and without (`control`) side by side, under the same names.
 */
export type Story = Experiment;
