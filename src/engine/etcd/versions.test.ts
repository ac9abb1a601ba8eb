import { expect, it } from 'vitest';
import { versionWarning } from './versions.ts';

it('names releases with known faults and lines that have ended, and nothing else', () => {
  for (const fine of ['3.5.33', '3.5.40', '3.6.14', '3.7.1', '3.8.0', '4.0.0']) {
    expect(versionWarning(fine), fine).toBeUndefined();
  }
  for (const faulty of ['3.5.32', '3.6.0', '3.6.13', '3.7.0']) {
    expect(versionWarning(faulty), faulty).toMatch(/known faults/);
  }
  for (const ended of ['3.4.45', '3.3.27', '2.3.8', 'unknown', '']) {
    expect(versionWarning(ended), ended).toMatch(/not maintained/);
  }
});
