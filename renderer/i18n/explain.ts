import type { ErrorShape } from '../../contract/errors.ts';
import { english } from './en.ts';

/** An error in words: what it means, then the studio's own sentence and what to do, each once. */
export function explain({ code, message }: ErrorShape): { title: string; detail: string } {
  const { title, advice } = english.errors[code];
  return { title, detail: message.includes(advice) ? message : `${message} ${advice}` };
}
