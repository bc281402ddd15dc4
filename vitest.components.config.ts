/** Component tests in the real browser, over the invented studio. */
import { playwright } from '@vitest/browser-playwright';
import { mergeConfig } from 'vite';
import { defineConfig } from 'vitest/config';
import { rendererConfig } from './renderer/vite.config.ts';

const launchOptions = { executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] };

export default mergeConfig(
  { plugins: rendererConfig.plugins },
  defineConfig({
    optimizeDeps: { include: ['svelte', 'bits-ui', 'zod', 'uplot', 'virtua/svelte'] },
    test: {
      include: ['tests/components/**/*.test.ts'],
      testTimeout: 60_000,
      browser: {
        enabled: true,
        headless: true,
        screenshotFailures: false,
        viewport: { width: 1280, height: 800 },
        provider: playwright({ launchOptions }),
        instances: [{ browser: 'chromium' }],
      },
    },
  }),
);
