/** The whole page over an invented studio, fresh for each test. */
import '../../renderer/noEval.ts';
import '../../renderer/styles/base.css';
import { page, userEvent } from 'vitest/browser';
import { render } from 'vitest-browser-svelte';
import { expect } from 'vitest';
import Root from '../../renderer/Root.svelte';
import { type FakeTransport, fakeTransport } from '../../renderer/transport/fake/index.ts';
import type { WorldOptions } from '../../renderer/transport/fake/world.ts';

export async function openPage(screen: string, options: WorldOptions = {}): Promise<FakeTransport> {
  location.hash = `#/${screen}`;
  const transport = fakeTransport({ stepMs: null, ...options });
  render(Root, { transport });
  await expect.element(page.getByRole('navigation', { name: 'Screens' })).toBeVisible();
  return transport;
}

export { expect, page, userEvent };
