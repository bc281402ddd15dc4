/** The library's folder and what lies where in it. Everything of a person's work is under this one folder. */
import { homedir, platform } from 'node:os';
import { join, resolve } from 'node:path';

/** VMOBA_LIBRARY, or the system's place for application data. */
export function defaultLibraryFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env['VMOBA_LIBRARY']) return resolve(env['VMOBA_LIBRARY']);
  switch (platform()) {
    case 'darwin':
      return join(homedir(), 'Library', 'Application Support', 'VMoBA Studio');
    case 'win32':
      return join(env['APPDATA'] ?? join(homedir(), 'AppData', 'Roaming'), 'VMoBA Studio');
    default:
      return join(env['XDG_DATA_HOME'] ?? join(homedir(), '.local', 'share'), 'vmoba-studio');
  }
}

export interface LibraryPaths {
  folder: string;
  database: string;
  /** Held by the owner as long as it lives. */
  lock: string;
  /** Where the owner can be reached: {pid, url}. */
  owner: string;
  backups: string;
  /** Finished clips, posters and maps. */
  takes: string;
  /** One folder per unfinished render: checkpoint, journal, maps. */
  work: string;
  exports: string;
  models: string;
  downloads: string;
  uploads: string;
}

export function libraryPaths(folder: string): LibraryPaths {
  const at = (name: string) => join(folder, name);
  return {
    folder,
    database: at('library.db'),
    lock: at('lock.db'),
    owner: at('owner.json'),
    backups: at('backups'),
    takes: at('takes'),
    work: at('work'),
    exports: at('exports'),
    models: at('models'),
    downloads: at('downloads'),
    uploads: at('uploads'),
  };
}
