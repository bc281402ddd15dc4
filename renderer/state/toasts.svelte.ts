/** Short messages at the edge of the window: what happened, and one button that undoes it or does something about it. */
import { toErrorShape } from '../../contract/errors.ts';
import { explain, text } from '../i18n/index.ts';

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
  let held = false;
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
    if (!held) startTimers();
    return id;
  }

  function startTimers() {
    for (const { id, kind } of items) {
      if (!timers.has(id))
        timers.set(
          id,
          setTimeout(() => dismiss(id), shownMs[kind]),
        );
    }
  }

  const toasts = {
    get items() {
      return items;
    },
    show: (message: string, action?: Toast['action']) => show({ kind: 'info', message, ...(action ? { action } : {}) }),
    undoable: (message: string, undo: () => Promise<unknown>) =>
      show({ kind: 'info', message, action: { label: text.common.undo, run: () => toasts.attempt(undo) } }),
    error(error: unknown, action?: Toast['action']) {
      const { title: message, detail } = explain(toErrorShape(error));
      show({ kind: 'error', message, detail, ...(action ? { action } : {}) });
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
      held = true;
      for (const timer of timers.values()) clearTimeout(timer);
      timers.clear();
    },
    release() {
      held = false;
      startTimers();
    },
  };
  return toasts;
}

export type Toasts = ReturnType<typeof createToasts>;
