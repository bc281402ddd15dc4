/** Component tests: the renderer's own build, mounted piece by piece in a real browser over the invented studio. */
import { fileURLToPath } from 'node:url';
import { playwright } from '@vitest/browser-playwright';
import { defineConfig } from 'vitest/config';
import { rendererConfig } from '../../renderer/vite.config.ts';

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  plugins: rendererConfig.plugins,
  cacheDir: 'build/vite-components',
  // Everything is found before the first test: a package found later would reload the page in the middle of one.
  optimizeDeps: {
    include: ['axe-core'],
    entries: ['renderer/main.ts', 'renderer/transport/fake/index.ts', 'tests/components/**/*.test.ts'],
  },
  test: {
    include: ['tests/components/**/*.test.ts'],
    globalSetup: ['tests/components/support/makeClips.ts'],
    setupFiles: ['tests/components/support/setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    // One page for all files: no module here keeps state, and each test mounts its own studio.
    isolate: false,
    expect: { poll: { timeout: 8000 } },
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      viewport: { width: 1280, height: 800 },
      provider: playwright({
        actionTimeout: 8000,
        launchOptions: { executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] },
      }),
      instances: [{ browser: 'chromium' }],
    },
  },
});
