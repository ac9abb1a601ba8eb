/** From vitest's JSON report to what a person reads: what failed, what was skipped, one closing line. */
import { relative } from 'node:path';

/**
 * Counts tests. A file that could not be loaded, an error outside any test and a run without a
 * report each count as one failure, so that nothing that went wrong reads as zero.
 */
export function tally(report, exitCode, checks = { passed: 0, failed: 0 }) {
  const passed = (report?.numPassedTests ?? 0) + checks.passed;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  let failed = (report?.numFailedTests ?? 0) + unloadable(report).length;
  if (failed === 0 && (exitCode !== 0 || !report)) failed = 1;
  return { passed, failed: failed + checks.failed, skipped };
}

export function closingLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

/** The failures again, in one place at the end, and what was skipped. */
export function afterword(report) {
  const lines = unloadable(report).map((file) => `failed to load ${name(file)}: ${file.message}`);
  const skipped = new Set();
  for (const file of report?.testResults ?? []) {
    for (const test of file.assertionResults) {
      if (test.status === 'failed') {
        lines.push(`failed: ${name(file)} › ${test.fullName}`);
        for (const message of test.failureMessages) lines.push(`  ${message.split('\n')[0]}`);
      } else if (test.status !== 'passed') {
        skipped.add(`skipped: ${name(file)} › ${test.ancestorTitles[0] ?? test.fullName}`);
      }
    }
  }
  return [...skipped, ...lines];
}

function name(file) {
  return relative('.', file.name);
}

function unloadable(report) {
  return (report?.testResults ?? []).filter(
    (file) => file.status === 'failed' && file.assertionResults.every((t) => t.status !== 'failed'),
  );
}
