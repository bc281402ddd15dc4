/** The one way components reach the state: a fresh one per connection, and per test. */
import { getContext, setContext } from 'svelte';
import type { AppState } from './app.svelte.ts';

const key = Symbol('app');

export const provideApp = (app: AppState): AppState => setContext(key, app);
export const useApp = (): AppState => getContext<AppState>(key);
