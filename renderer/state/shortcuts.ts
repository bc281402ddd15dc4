/** Which keys do what, on all screens at once: a key has one meaning, whatever is shown. */
import type { text } from '../i18n/index.ts';

export const isMac = /Mac|iPhone|iPad/.test(navigator.platform);

export type ActionName = keyof typeof text.actions;
/** What keys do that are nobody's to give. */
export type FixedUse = keyof typeof text.fixedKeys;

/** '' for none. */
export const originalKeys: Record<ActionName, string> = {
  'go-compose': 'Mod+1',
  'go-live': 'Mod+2',
  'go-queue': 'Mod+3',
  'go-library': 'Mod+4',
  'go-models': 'Mod+5',
  'go-settings': isMac ? 'Mod+,' : 'Mod+6',
  palette: 'Mod+K',
  'focus-prompt': 'Mod+L',
  render: 'Mod+Enter',
  'render-next': 'Mod+Shift+Enter',
  draft: 'Mod+Alt+Enter',
  'random-seed': 'Alt+R',
  'toggle-queue': 'Mod+Shift+P',
  'cancel-render': '',
  'search-library': 'Mod+F',
  'toggle-theme': 'Mod+Shift+L',
  'play-pause': 'Space',
  'frame-back': 'ArrowLeft',
  'frame-forward': 'ArrowRight',
  favourite: 'F',
  'restart-engine': '',
};

export const actionNames = Object.keys(originalKeys) as ActionName[];

const fixedKeys: Record<string, FixedUse> = {
  Enter: 'press',
  Space: 'press',
  ArrowUp: 'walk',
  ArrowDown: 'walk',
  ArrowLeft: 'walk',
  ArrowRight: 'walk',
  Home: 'walk',
  End: 'walk',
  PageUp: 'walk',
  PageDown: 'walk',
  'Alt+ArrowUp': 'reorder',
  'Alt+ArrowDown': 'reorder',
  'Alt+Home': 'reorder',
  'Alt+End': 'reorder',
  'Mod+A': 'select-all',
  'Mod+C': 'copy',
  'Mod+O': 'open-clip',
  'Mod+V': 'paste',
  'Mod+X': 'cut',
  'Mod+Y': 'redo',
  'Mod+Shift+Z': 'redo',
  'Mod+Z': 'undo',
};

export type ChosenKeys = Readonly<Record<string, string>>;

export const keysOfAction = (name: ActionName, chosen: ChosenKeys): string => chosen[name] ?? originalKeys[name];

/** What else already has these keys; null where `name` may take them. An action may always have its original ones back. */
export function holderOf(
  keys: string,
  name: ActionName,
  chosen: ChosenKeys,
): { action: ActionName } | { fixed: FixedUse } | null {
  if (keys === '') return null;
  const action = actionNames.find((other) => other !== name && keysOfAction(other, chosen) === keys);
  if (action) return { action };
  const fixed = fixedKeys[keys];
  return fixed === undefined || keys === originalKeys[name] ? null : { fixed };
}
