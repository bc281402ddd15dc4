/** Which screen is shown. Kept in the address, so that a reload stays where it was. */
export const screens = ['compose', 'live', 'queue', 'library', 'models', 'settings'] as const;
export type Screen = (typeof screens)[number];

const isScreen = (name: string): name is Screen => (screens as readonly string[]).includes(name);

export function createNavigation(location: Location = window.location) {
  const fromAddress = (): Screen => {
    const name = location.hash.replace(/^#\/?/, '').split('/')[0] ?? '';
    return isScreen(name) ? name : 'compose';
  };
  let screen = $state<Screen>(fromAddress());
  const follow = () => (screen = fromAddress());
  window.addEventListener('hashchange', follow);

  return {
    get screen() {
      return screen;
    },
    go(to: Screen) {
      screen = to;
      if (fromAddress() !== to) location.hash = `#/${to}`;
    },
    dispose: () => window.removeEventListener('hashchange', follow),
  };
}

export type Navigation = ReturnType<typeof createNavigation>;
