/** One library served over HTTP, from opening to the last checkpoint. */
import type { LaunchProcess } from '../engine/process/launch.ts';
import { Studio } from '../studio/studio.ts';
import { embeddedModel, galleryFolder, rendererFolder, studioVersion } from '../host/resources.ts';
import { type RunningServer, startServer } from './server.ts';

export interface ServeOptions {
  /** The library's folder. */
  library: string;
  host: string;
  port: number;
  token?: string | undefined;
  allowHosts?: readonly string[];
  /** Another engine addon than the built one (tests). */
  addon?: string | undefined;
  launch?: LaunchProcess;
  /** False: nothing is rendered. */
  work?: boolean;
}

export interface ServedStudio {
  studio: Studio;
  server: RunningServer;
  /** Checkpoints the running render, says good-bye, releases port and library. */
  close(reason?: string): Promise<void>;
}

/** Errors: library-locked, library-newer, io, bad-request for a port that cannot be had. */
export async function serveStudio(options: ServeOptions): Promise<ServedStudio> {
  const studio = await Studio.open({
    folder: options.library,
    version: studioVersion(),
    host: { kind: 'headless' },
    embeddedModel: embeddedModel(),
    galleryFolder: galleryFolder(),
    ...(options.addon === undefined ? {} : { addon: options.addon }),
    ...(options.launch === undefined ? {} : { launch: options.launch }),
    work: options.work ?? true,
  });
  try {
    const server = await startServer({ studio, rendererFolder: rendererFolder(), ...options });
    await studio.announce(server.url);
    return {
      studio,
      server,
      async close(reason) {
        // The studio first: its clients hear why, and see the render pause, before they are cut off.
        await studio.close(reason);
        await server.close();
      },
    };
  } catch (error) {
    await studio.close('it could not be served');
    throw error;
  }
}
