/** Projects group renders and takes. */
import { z } from 'zod';
import { done, mediaId, nothing, projectId, shortName, timestamp } from './common.ts';
import { event, method } from './method.ts';

export const project = z.object({
  id: projectId,
  name: z.string(),
  takes: z.int(),
  /** Renders not yet done. */
  openRenders: z.int(),
  /** Poster of the newest take. */
  coverMediaId: mediaId.nullable(),
  createdAt: timestamp,
  trashedAt: timestamp.nullable(),
});
export type Project = z.infer<typeof project>;

const one = z.strictObject({ id: projectId });

export const projectMethods = {
  'projects.list': method(
    'All projects, oldest first; trashed ones left out.',
    nothing,
    z.object({ items: z.array(project) }),
  ),
  'projects.create': method('A new project.', z.strictObject({ name: shortName }), project),
  'projects.rename': method('Errors: not-found.', z.strictObject({ id: projectId, name: shortName }), project),
  'projects.trash': method(
    'Moves a project with its takes to the trash and pauses its open renders. Errors: not-found, conflict for the last project.',
    one,
    done,
  ),
  'projects.restore': method(
    'Takes a project and what went with it out of the trash. Errors: not-found.',
    one,
    project,
  ),
};

export const projectEvents = {
  'projects.changed': event('A project is new or has changed.', project),
};
