/** Takes ticked for something: comparing, moving to the trash. */
import type { Take } from '../../contract/takes.ts';

export function createSelection() {
  let items = $state.raw<Take[]>([]);
  return {
    get items() {
      return items;
    },
    has: (id: string) => items.some((take) => take.id === id),
    toggle(take: Take) {
      items = items.some(({ id }) => id === take.id) ? items.filter(({ id }) => id !== take.id) : [...items, take];
    },
    clear: () => (items = []),
  };
}

export type Selection = ReturnType<typeof createSelection>;
