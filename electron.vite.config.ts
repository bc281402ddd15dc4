import { fileURLToPath } from 'node:url';
import { defineConfig } from 'electron-vite';
import { rendererConfig } from './renderer/vite.config.ts';

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export default defineConfig({
  main: {
    build: {
      outDir: 'out/main',
      rollupOptions: {
        // Child processes and the library's thread find their entries beside the main file (see forkEntry).
        input: {
          main: path('main/electron/main.ts'),
          engineProcess: path('main/engine/engineProcess.ts'),
          encodeProcess: path('main/studio/encode/encodeProcess.ts'),
          libraryWorker: path('main/studio/library/libraryWorker.ts'),
        },
      },
    },
  },
  preload: {
    build: {
      outDir: 'out/preload',
      rollupOptions: {
        input: { preload: path('main/electron/preload.ts') },
        // A sandboxed preload script must be CommonJS, in one file.
        output: { format: 'cjs', entryFileNames: '[name].cjs' },
      },
    },
  },
  renderer: rendererConfig,
});
