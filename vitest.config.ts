import type { ViteUserConfig } from 'vitest/config';

const config: ViteUserConfig = {
  resolve: { conditions: ['holdfast/source'] },
  ssr: { resolve: { conditions: ['holdfast/source'] } },
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    pool: 'forks',
    // Continuous integration has two cores; tests that measure time suffer from more workers.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
};

export default config;
