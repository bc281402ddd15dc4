import { describe, expect, test } from 'vitest';
import {
  actionNames,
  type ActionName,
  type ChosenKeys,
  holderOf,
  originalKeys,
} from '../../renderer/state/shortcuts.ts';

describe('keys', () => {
  test('have one meaning from the start', () => {
    expect(actionNames.map((name) => holderOf(originalKeys[name], name, {}))).toEqual(actionNames.map(() => null));
  });

  const rows: [string, string, ActionName, ChosenKeys, ReturnType<typeof holderOf>][] = [
    ['of an action of the same screen', 'Mod+2', 'go-queue', {}, { action: 'go-live' }],
    ['of an action of another screen', 'F', 'go-queue', {}, { action: 'favourite' }],
    ['that were chosen for another action', 'J', 'go-queue', { favourite: 'J' }, { action: 'favourite' }],
    ['that another action had before', 'F', 'go-queue', { favourite: 'J' }, null],
    ['taken from another action', 'F', 'go-queue', { favourite: '' }, null],
    ['of its own', 'Mod+3', 'go-queue', {}, null],
    ['none', '', 'go-queue', { render: '' }, null],
    ['that nothing has', 'Mod+J', 'go-queue', {}, null],
    ['that edit text', 'Mod+C', 'go-queue', {}, { fixed: 'copy' }],
    ['that press what is in focus', 'Enter', 'go-queue', {}, { fixed: 'press' }],
    ['that move renders', 'Alt+Home', 'go-queue', {}, { fixed: 'reorder' }],
    ['fixed, though no action has them any more', 'Space', 'go-queue', { 'play-pause': 'J' }, { fixed: 'press' }],
    ['fixed, had back by the action they came with', 'Space', 'play-pause', { 'play-pause': 'J' }, null],
  ];
  test.each(rows)('%s', (_, keys, name, chosen, holder) => {
    expect(holderOf(keys, name, chosen)).toEqual(holder);
  });
});
