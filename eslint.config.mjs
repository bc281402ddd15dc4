import js from '@eslint/js';
import prettier from 'eslint-config-prettier';
import svelte from 'eslint-plugin-svelte';
import globals from 'globals';
import typescript from 'typescript-eslint';

/** Type-aware rules catch the mistakes that cost most in this project: promises nobody waits for. */
const typeAware = {
  files: ['contract/**/*.ts', 'main/**/*.ts', 'scripts/**/*.ts', 'tests/**/*.ts'],
  ignores: ['tests/components/**', 'tests/renderer/**'],
  languageOptions: {
    parserOptions: {
      project: ['./tsconfig.json', './main/electron/tsconfig.json'],
      tsconfigRootDir: import.meta.dirname,
    },
  },
  rules: {
    '@typescript-eslint/no-floating-promises': 'error',
    '@typescript-eslint/no-misused-promises': 'error',
    '@typescript-eslint/await-thenable': 'error',
    '@typescript-eslint/only-throw-error': 'error',
    '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
  },
};

export default typescript.config(
  {
    ignores: [
      'build/**',
      'out/**',
      'dist/**',
      'coverage/**',
      'renders/**',
      'native/**',
      'kernels/**',
      'training/**',
      'test-results/**',
      'playwright-report/**',
    ],
  },
  js.configs.recommended,
  ...typescript.configs.strict,
  ...svelte.configs.recommended,
  {
    files: ['**/*.svelte', '**/*.svelte.ts', '**/*.svelte.js'],
    languageOptions: {
      globals: globals.browser,
      parserOptions: { parser: typescript.parser, extraFileExtensions: ['.svelte'] },
    },
  },
  {
    files: ['**/*.mjs', 'contract/**/*.ts', 'main/**/*.ts', 'scripts/**/*.ts', 'tests/**/*.ts', '*.config.ts'],
    languageOptions: { globals: globals.node },
  },
  { files: ['renderer/**/*.ts'], languageOptions: { globals: globals.browser } },
  // Maps that change are never state here: state is replaced as a whole.
  { files: ['renderer/**/*.svelte.ts'], rules: { 'svelte/prefer-svelte-reactivity': 'off' } },
  typeAware,
  {
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: false } }],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/no-invalid-void-type': 'off',
    },
  },
  prettier,
  ...svelte.configs.prettier,
);
