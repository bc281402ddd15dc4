import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['tests/unit/**/*.test.ts', 'tests/integration/**/*.test.ts'],
    // Generous: a busy machine is slow, and no test asserts times.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Files run in processes of their own: native modules (video encoder, database) stay apart.
    pool: 'forks',
    maxWorkers: 2,
  },
});
