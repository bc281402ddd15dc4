/** The renderer's build, shared by electron-vite, plain Vite and the component tests. */
import { fileURLToPath } from 'node:url';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin, type UserConfig } from 'vite';

const folder = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** A wrapper of the command list carries a style attribute, which the content security policy forbids: a class instead. */
const withoutInlineStyle: Plugin = {
  name: 'without-inline-style',
  enforce: 'pre',
  transform: (code, id) =>
    /bits-ui.*\.svelte$/.test(id) && code.includes('style="display: contents;"')
      ? code.replaceAll('style="display: contents;"', 'class="contents"')
      : null,
};

export const rendererConfig: UserConfig = {
  root: folder('.'),
  base: './',
  plugins: [withoutInlineStyle, svelte({ configFile: false })],
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
