/** Projects, and the one that new renders go to. */
import type { StudioClient } from '../../contract/client.ts';
import type { Project } from '../../contract/projects.ts';
import type { SettingsState } from './settings.svelte.ts';

export function createProjects(client: StudioClient, settings: SettingsState) {
  let items = $state.raw<Project[]>([]);
  const current = $derived(items.find(({ id }) => id === settings.value.client['project']) ?? items[0] ?? null);
  const end = client.on('projects.changed', (project) => {
    const others = items.filter(({ id }) => id !== project.id);
    items = project.trashedAt === null ? [...others, project].sort((a, b) => a.createdAt - b.createdAt) : others;
  });

  return {
    get items() {
      return items;
    },
    get current() {
      return current;
    },
    async load() {
      items = (await client.call('projects.list')).items;
    },
    choose: (id: string) => settings.update({ client: { project: id } }),
    async create(name: string) {
      const { id } = await client.call('projects.create', { name });
      await settings.update({ client: { project: id } });
    },
    dispose: end,
  };
}

export type ProjectsState = ReturnType<typeof createProjects>;
