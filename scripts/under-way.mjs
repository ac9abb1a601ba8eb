/**
 * A reporter of vitest that keeps a file of how far it is, for a run that does not come to its end:
 * the test files under way, what ended last in each, and what has failed.
 */
import { writeFileSync } from 'node:fs';

const FAILURES_MAX = 20;

export default class UnderWay {
  #files = new Map();
  #failures = [];

  onTestModuleStart({ relativeModuleId }) {
    this.#files.set(relativeModuleId, 'its beginning');
    this.#write();
  }

  onTestCaseResult(test) {
    const file = test.module.relativeModuleId;
    this.#files.set(file, test.fullName);
    const { state, errors } = test.result();
    if (state === 'failed')
      this.#failures.push(`${file} › ${test.fullName}: ${errors[0]?.message}`);
    this.#write();
  }

  onTestModuleEnd({ relativeModuleId }) {
    this.#files.delete(relativeModuleId);
    this.#write();
  }

  #write() {
    const lines = [
      ...[...this.#files].map(([file, last]) => `under way: ${file}, after: ${last}`),
      ...this.#failures.slice(0, FAILURES_MAX).map((failure) => `failed: ${failure}`),
    ];
    writeFileSync(process.env.HOLDFAST_UNDER_WAY, lines.join('\n'));
  }
}
