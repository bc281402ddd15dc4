/** Short messages at the edge of the window: what happened, and one button that undoes it or does something about it. */
import { toErrorShape } from '../../contract/errors.ts';
import { text } from '../i18n/index.ts';

export interface Toast {
  id: number;
  kind: 'info' | 'error';
  message: string;
  /** What it means or what to do, under the message. */
  detail?: string;
  action?: { label: string; run: () => unknown };
}

const shownMs = { info: 8000, error: 20_000 };
const maximumShown = 4;

export function createToasts() {
  let items = $state.raw<Toast[]>([]);
  let nextId = 1;
  const timers = new Map<number, ReturnType<typeof setTimeout>>();

  function dismiss(id: number) {
    clearTimeout(timers.get(id));
    timers.delete(id);
    items = items.filter((toast) => toast.id !== id);
  }

  function show(toast: Omit<Toast, 'id'>): number {
    const id = nextId++;
    const kept = items.filter((other) => other.message !== toast.message || other.detail !== toast.detail);
    items = [...kept.slice(1 - maximumShown), { ...toast, id }];
    timers.set(
      id,
      setTimeout(() => dismiss(id), shownMs[toast.kind]),
    );
    return id;
  }

  const toasts = {
    get items() {
      return items;
    },
    show: (message: string, action?: Toast['action']) => show({ kind: 'info', message, ...(action ? { action } : {}) }),
    undoable: (message: string, undo: () => Promise<unknown>) =>
      show({ kind: 'info', message, action: { label: text.common.undo, run: () => toasts.attempt(undo) } }),
    error(error: unknown, action?: Toast['action']) {
      const { code, message } = toErrorShape(error);
      const { title, advice } = text.errors[code];
      show({
        kind: 'error',
        message: title,
        detail: advice === '' || message.includes(advice) ? message : `${message} ${advice}`,
        ...(action ? { action } : {}),
      });
    },
    /** Runs something a person asked for; a failure is told, once, and gives undefined. */
    async attempt<Result>(run: () => Promise<Result>): Promise<Result | undefined> {
      try {
        return await run();
      } catch (error) {
        toasts.error(error);
        return undefined;
      }
    },
    dismiss,
    /** Pointer or focus is on the toasts: they stay. */
    hold() {
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
    },
    release() {
      for (const { id, kind } of items) {
        if (!timers.has(id))
          timers.set(
            id,
            setTimeout(() => dismiss(id), shownMs[kind]),
          );
      }
    },
  };
  return toasts;
}

export type Toasts = ReturnType<typeof createToasts>;
