/** One registry behind the command palette, the shortcuts and native menus: what can be done, and with which keys. */
import { text } from '../i18n/index.ts';
import { isTyping, keysOf } from './keys.ts';
import type { SettingsState } from './settings.svelte.ts';

export type ActionName = keyof typeof text.actions;

export interface Action {
  name: ActionName;
  /** Default keys; '' for none. */
  keys: string;
  run: () => unknown;
  /** Whether it can be done now. */
  available?: () => boolean;
}

export function createActions(settings: SettingsState) {
  let items = $state.raw<Action[]>([]);
  const keysFor = ({ name, keys }: Action): string => settings.value.shortcuts[name] ?? keys;

  const actions = {
    get items() {
      return items;
    },
    title: (name: ActionName): string => text.actions[name],
    keysOf: (name: ActionName): string => {
      const action = items.find((one) => one.name === name);
      return action ? keysFor(action) : '';
    },
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
    /** The other action that already has these keys. */
    conflict(name: ActionName, keys: string): ActionName | null {
      return items.find((one) => one.name !== name && keys !== '' && keysFor(one) === keys)?.name ?? null;
    },
    handle(event: KeyboardEvent) {
      if (event.defaultPrevented || event.isComposing) return;
      const keys = keysOf(event);
      if (keys === null) return;
      if (isTyping(event.target) && !/^(Mod|Alt)\+/.test(keys) && !/^F\d+$/.test(keys)) return;
      if (keys === 'Space' && event.target instanceof Element && event.target.closest('button, a, [role=option]'))
        return;
      const action = items.findLast((one) => keysFor(one) === keys && (one.available?.() ?? true));
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
