/** A reporter of vitest that keeps a file of what is under way: test files, and what ended last in each. */
import { writeFileSync } from 'node:fs';

export default class UnderWay {
  #files = new Map();

  onTestModuleStart({ relativeModuleId }) {
    this.#files.set(relativeModuleId, 'its beginning');
    this.#write();
  }

  onTestCaseResult(test) {
    this.#files.set(test.module.relativeModuleId, test.fullName);
    this.#write();
  }

  onTestModuleEnd({ relativeModuleId }) {
    this.#files.delete(relativeModuleId);
    this.#write();
  }

  #write() {
    const lines = [...this.#files].map(([file, last]) => `${file}, after: ${last}`);
    writeFileSync(process.env.HOLDFAST_UNDER_WAY, lines.join('\n'));
  }
}
