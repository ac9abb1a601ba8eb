/**
 * The oldest etcd of each line that we would build on. Older ones have known faults in leases,
 * watches and rights that no client can mend; they are served all the same, and named on request.
 */
const OLDEST: Readonly<Record<string, number>> = { '3.5': 33, '3.6': 14, '3.7': 1 };
const ADVICE = 'use 3.5.33, 3.6.14, 3.7.1 or newer';

/** A sentence for the operator, or undefined when there is nothing to say. */
export function versionWarning(version: string): string | undefined {
  const [, line = '', patch] = /^(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const oldest = OLDEST[line];
  if (oldest !== undefined) {
    return Number(patch) >= oldest ? undefined : `etcd ${version} has known faults: ${ADVICE}`;
  }
  const [major = 0, minor = 0] = line.split('.').map(Number);
  if (major > 3 || (major === 3 && minor > 7)) return undefined;
  return `etcd ${version || 'of unknown version'} is not maintained any more: ${ADVICE}`;
}
