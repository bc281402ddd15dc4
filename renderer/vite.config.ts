/** The renderer's build, shared by electron-vite, plain Vite and the component tests. */
import { fileURLToPath } from 'node:url';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type UserConfig } from 'vite';

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export const rendererConfig: UserConfig = {
  root: folder('.'),
  base: './',
  plugins: [svelte({ configFile: false })],
  build: {
    outDir: folder('../out/renderer'),
    emptyOutDir: true,
    target: 'chrome140',
    // Data addresses would need holes in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: folder('index.html') },
  },
};

export default defineConfig(rendererConfig);
