/** One client over one WebSocket: binary messages of the contract's codec, at the pace the limits allow. */
import type { WebSocket } from 'ws';
import { StudioError } from '../../contract/errors.ts';
import { Connection } from '../studio/connection.ts';
import type { Studio } from '../studio/studio.ts';
import { limits } from './limits.ts';

/** Close codes of RFC 6455 that are used here. */
export const closeCodes = { goingAway: 1001, unsupportedData: 1003, policy: 1008, tooBig: 1009 } as const;

const pingMs = 30_000;

/** @param id Unique among the studio's connections. */
export function serveSocket(studio: Studio, socket: WebSocket, id: string): void {
  const connection = new Connection(studio, id, {
    send(message) {
      if (socket.readyState !== socket.OPEN) return;
      if (socket.bufferedAmount > limits.pendingBytes) socket.terminate();
      else socket.send(message);
    },
    pendingBytes: () => socket.bufferedAmount,
  });
  const bucket = limits.messages();
  let openCalls = 0;
  let resumeAt: NodeJS.Timeout | undefined;
  let answered = true;

  // Not reading is the limit that costs a well-meaning client nothing and a flood its effect: TCP makes it wait.
  const pace = () => {
    if (resumeAt || openCalls >= limits.openCalls) socket.pause();
    else if (socket.isPaused) socket.resume();
  };

  const receive = async (data: Uint8Array) => {
    openCalls++;
    const waitMs = bucket.take();
    if (waitMs > 0) {
      resumeAt ??= setTimeout(() => {
        resumeAt = undefined;
        pace();
      }, waitMs);
    }
    pace();
    try {
      await connection.receive(data);
    } catch (error) {
      // Answers need the message's number, and what cannot be read has none.
      socket.close(closeCodes.policy, error instanceof StudioError ? error.code : 'bad-request');
    } finally {
      openCalls--;
      pace();
    }
  };

  socket.on('message', (data: Buffer, isBinary) => {
    if (socket.readyState !== socket.OPEN) return;
    if (isBinary) void receive(data);
    else socket.close(closeCodes.unsupportedData, 'binary messages only');
  });
  socket.on('pong', () => (answered = true));
  socket.on('error', () => socket.terminate()); // a malformed or oversized frame; 'close' follows
  const pings = setInterval(() => {
    if (!answered && !socket.isPaused) return socket.terminate();
    answered = false;
    socket.ping();
  }, pingMs);
  pings.unref();
  socket.on('close', () => {
    clearInterval(pings);
    clearTimeout(resumeAt);
    connection.close();
  });
}
