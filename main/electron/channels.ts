/** Every word that passes between the app and its preload script. The contract travels over the port alone. */
export const channels = {
  /** Page → app: asks for a port. */
  connect: 'studio:connect',
  /** App → page: hands one over. */
  port: 'studio:port',
  /** App → page: a menu entry was chosen; its action's name. */
  command: 'studio:command',
  /** App → page: a clip was opened from the system; {uploadId, name}. */
  fileOpened: 'studio:file-opened',
} as const;
