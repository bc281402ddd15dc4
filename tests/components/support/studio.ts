/** A fresh invented studio with its state, and parts of the interface mounted over it. */
import type { Component } from 'svelte';
import { cleanup, render } from 'vitest-browser-svelte/pure';
import type { MethodName } from '../../../contract/index.ts';
import App from '../../../renderer/App.svelte';
import { type AppState, createApp } from '../../../renderer/state/app.svelte.ts';
import { type FakeTransport, fakeTransport } from '../../../renderer/transport/fake/index.ts';
import type { WorldOptions } from '../../../renderer/transport/fake/world.ts';
import Stand from './Stand.svelte';

export interface Studio {
  app: AppState;
  world: FakeTransport['world'];
  transport: FakeTransport;
}

const open: AppState[] = [];

/** The queue stands still until `world.advance()`. */
export async function openStudio(options: WorldOptions = {}): Promise<Studio> {
  location.hash = '';
  const transport = fakeTransport({ stepMs: null, ...options });
  const app = createApp(await transport.connect(() => {}), transport);
  open.push(app);
  await app.load();
  return { app, world: transport.world, transport };
}

/** The whole window. */
export async function mountApp({ app }: Studio) {
  await render(App, { target: place(), props: { app } });
}

/** A studio with a render of which these many steps are done. */
export async function openLive(steps: number, options: WorldOptions = {}) {
  const studio = await openStudio({ waiting: 1, ...options });
  for (let step = 0; step <= steps; step++) studio.world.advance();
  const render = studio.world.renders[0];
  if (!render) throw new Error('Nothing renders.');
  return { ...studio, render, planted: studio.world.steps.get(render.id) ?? [] };
}

/** One component, with the toasts beside it. */
export async function mountPart<Props extends Record<string, unknown>>(
  { app }: Studio,
  part: Component<Props>,
  props: Props = {} as Props,
) {
  await render(Stand, { target: place(), props: { app, part: part as Component<Record<string, unknown>>, props } });
}

/** A component that needs no studio. */
export async function mountAlone<Props extends Record<string, unknown>>(part: Component<Props>, props: Props) {
  return render(part, { target: place(), props });
}

/** Lets something happen before, or in place of, one of the studio's answers. */
export function before({ app }: Studio, wanted: MethodName, act: (input: unknown) => Promise<void>) {
  const { client } = app;
  const call = client.call.bind(client) as (name: MethodName, input: unknown) => Promise<never>;
  client.call = async (name: MethodName, input?: unknown) => {
    if (name === wanted) await act(input);
    return call(name, input);
  };
}

export function closeStudios() {
  cleanup();
  document.body.replaceChildren();
  for (const app of open.splice(0)) app.dispose();
  for (const name of ['theme', 'motion']) document.documentElement.removeAttribute(`data-${name}`);
}

function place(): HTMLElement {
  const target = document.createElement('div');
  target.id = 'app';
  document.body.append(target);
  return target;
}
