/** How the page reaches its studio. One implementation per kind of host. */
import type { StudioClient } from '../../contract/client.ts';
import { StudioError } from '../../contract/errors.ts';

export interface Transport {
  /** Errors: disconnected where nothing answers, unauthorized. */
  connect(onLost: (reason: string) => void): Promise<StudioClient>;
  /** Address of a clip or picture, on the page's own origin. */
  mediaUrl(mediaId: string): string;
  /** Commands of native menus and the tray. Returns the function that ends it. */
  onCommand?(listener: (action: string) => void): () => void;
  /** Clips opened from the system, already uploaded. Returns the function that ends it. */
  onFileOpened?(listener: (file: { uploadId: string; name: string }) => void): () => void;
  /** Path of a dropped file on the studio's own machine, where the host can tell. */
  pathOf?(file: File): string | null;
}

export const lost = (reason: string) => new StudioError('disconnected', reason);

export function mediaUrl(mediaId: string): string {
  return new URL(`media/${encodeURIComponent(mediaId)}`, document.baseURI).href;
}
