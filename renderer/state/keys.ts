/** Key presses as text: "Mod+Shift+K", where Mod is Command on Macs and Control elsewhere. */
import { isMac } from './shortcuts.ts';

const order = ['Mod', 'Alt', 'Shift'] as const;

/** The shortcut an event stands for, or null while only modifiers are held. */
export function keysOf(event: KeyboardEvent): string | null {
  if (['Control', 'Shift', 'Alt', 'Meta', 'AltGraph', 'Dead'].includes(event.key)) return null;
  const held: Record<(typeof order)[number], boolean> = {
    Mod: isMac ? event.metaKey : event.ctrlKey,
    Alt: event.altKey,
    Shift: event.shiftKey,
  };
  const key = event.key === ' ' ? 'Space' : event.key.length === 1 ? event.key.toUpperCase() : event.key;
  return [...order.filter((name) => held[name] && !(name === 'Shift' && isShiftedSign(key))), key].join('+');
}

/** "?" already says that Shift was held. */
const isShiftedSign = (key: string) => key.length === 1 && !/[A-Z0-9]/.test(key);

const shown: Record<string, string> = isMac
  ? { Mod: '⌘', Alt: '⌥', Shift: '⇧', ArrowUp: '↑', ArrowDown: '↓', ArrowLeft: '←', ArrowRight: '→', Enter: '↵' }
  : { Mod: 'Ctrl', ArrowUp: '↑', ArrowDown: '↓', ArrowLeft: '←', ArrowRight: '→' };

export const showKeys = (keys: string): string =>
  keys
    .split('+')
    .map((key) => shown[key] ?? key)
    .join(isMac ? '' : '+');

/** Whether typing goes there: single-key shortcuts stay out of its way. */
export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target instanceof HTMLTextAreaElement) return true;
  return target instanceof HTMLInputElement && !['checkbox', 'radio', 'range', 'button'].includes(target.type);
}
