/** One registry behind the command palette, the shortcuts and native menus: what can be done, and with which keys. */
import { text } from '../i18n/index.ts';
import { isTyping, keysOf } from './keys.ts';
import type { SettingsState } from './settings.svelte.ts';
import { type ActionName, holderOf, keysOfAction } from './shortcuts.ts';

export interface Action {
  name: ActionName;
  run: () => unknown;
  /** Whether it can be done now. */
  available?: () => boolean;
}

export function createActions(settings: SettingsState) {
  let items = $state.raw<Action[]>([]);
  const keysOfNow = (name: ActionName): string => keysOfAction(name, settings.value.shortcuts);

  const actions = {
    get items() {
      return items;
    },
    title: (name: ActionName): string => text.actions[name],
    keysOf: keysOfNow,
    /** Adds actions; returns the function that takes them away again. */
    register(added: Action[]): () => void {
      items = [...items, ...added];
      return () => (items = items.filter((action) => !added.includes(action)));
    },
    run(name: string): boolean {
      const action = items.findLast((one) => one.name === name && (one.available?.() ?? true));
      if (!action) return false;
      action.run();
      return true;
    },
    /** What else already has these keys. */
    holder: (keys: string, name: ActionName) => holderOf(keys, name, settings.value.shortcuts),
    handle(event: KeyboardEvent) {
      if (event.defaultPrevented || event.isComposing) return;
      const keys = keysOf(event);
      if (keys === null) return;
      if (isTyping(event.target) && !/^(Mod|Alt)\+/.test(keys) && !/^F\d+$/.test(keys)) return;
      if (keys === 'Space' && event.target instanceof Element && event.target.closest('button, a, [role=option]'))
        return;
      const action = items.findLast((one) => keysOfNow(one.name) === keys && (one.available?.() ?? true));
      if (!action) return;
      event.preventDefault();
      action.run();
    },
    async rebind(name: ActionName, keys: string) {
      await settings.update({ shortcuts: { [name]: keys } });
    },
  };
  return actions;
}

export type ActionsState = ReturnType<typeof createActions>;
