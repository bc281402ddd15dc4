/**
 * Imports go one way: renderer → contract ← main; inside main: electron, headless, cli → host → studio → engine.
 * A wrong-way import fails `npm run layers`, which is part of `npm test`.
 */
const forbid = (name, comment, from, to) => ({
  name,
  comment,
  severity: 'error',
  from: { path: from },
  to: { path: to },
});

export default {
  forbidden: [
    forbid(
      'contract-stands-alone',
      'The contract imports nothing of ours.',
      '^contract/',
      '^(main|renderer|tests|scripts)/',
    ),
    {
      name: 'contract-runs-anywhere',
      comment: 'The contract is shared with the browser: no Node modules.',
      severity: 'error',
      from: { path: '^contract/' },
      to: { dependencyTypes: ['core'] },
    },
    forbid(
      'renderer-knows-only-contract',
      'The renderer sees the contract and nothing of main.',
      '^renderer/',
      '^(main|tests|scripts)/',
    ),
    forbid('main-knows-no-renderer', 'Main never imports renderer code.', '^main/', '^(renderer|tests|scripts)/'),
    forbid(
      'engine-is-lowest',
      'The engine process knows nothing above it.',
      '^main/engine/',
      '^main/(studio|host|electron|headless|cli)/',
    ),
    forbid(
      'studio-knows-no-host',
      'The studio knows no Electron, no HTTP, no command line.',
      '^main/studio/',
      '^main/(electron|headless|cli|host)/',
    ),
    {
      name: 'files-serve-all',
      comment: 'What every room of the studio writes with knows none of them.',
      severity: 'error',
      from: { path: '^main/studio/files/' },
      to: { path: '^main/', pathNot: '^main/studio/(files/|failpoints)' },
    },
    {
      name: 'studio-without-electron-or-sockets',
      comment: 'Only hosts touch Electron and sockets.',
      severity: 'error',
      from: { path: '^main/(studio|engine)/' },
      to: { path: '^(node_modules/)?(electron|ws)(/|$)' },
    },
    forbid(
      'electron-without-cli',
      "The app opens the headless host's door for the command line, and knows nothing of that.",
      '^main/electron/',
      '^main/cli/',
    ),
    forbid(
      'host-knows-no-host',
      'What all hosts share knows none of them.',
      '^main/host/',
      '^main/(electron|headless|cli)/',
    ),
    forbid('headless-stands-alone', 'Hosts do not import each other.', '^main/headless/', '^main/(electron|cli)/'),
    forbid(
      'cli-without-electron',
      'The command line may start the headless host, never Electron.',
      '^main/cli/',
      '^main/electron/',
    ),
    {
      name: 'no-cycles',
      comment: 'A cycle has no lower side.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'resolvable',
      comment: 'An import that resolves to nothing.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.mjs', '.js', '.svelte', '.json', '.node'],
    },
  },
};
