export interface Count {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}
export function tally(
  report: object | null,
  exitCode: number | undefined,
  checks?: Pick<Count, 'passed' | 'failed'>,
): Count;
export function closingLine(count: Count): string;
export function afterword(report: object | null): string[];
