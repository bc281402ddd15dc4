/** `vmoba-studio projects` and `takes`: what was made, and where it belongs. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import type { Project } from '../../contract/projects.ts';
import type { Take } from '../../contract/takes.ts';
import { checkWritable } from '../studio/render/checkRequest.ts';
import { asking, contractCommand, type ContractFlags, everyPage, printResult } from './contractCommand.ts';
import { formatBytes } from './format.ts';
import { table } from './table.ts';

export function projectsCommand(): Command {
  const projects = new Command('projects').description('List, make, rename and trash projects');
  const add = (name: string, description: string) => contractCommand(projects, name, description);
  const tell = (project: Project, json: boolean | undefined) =>
    printResult(project, json, () => console.log(table([projectRow(project)])[0]));

  add('list', 'All projects').action(
    asking(async ({ client }, { json }) => {
      const { items } = await client.call('projects.list', {});
      printResult(items, json, () => {
        for (const line of table(items.map(projectRow))) console.log(line);
      });
    }),
  );
  add('create', 'A new project')
    .argument('<name>')
    .action(
      asking(async ({ client }, { json }, name: string) => tell(await client.call('projects.create', { name }), json)),
    );
  add('rename', 'Another name for a project')
    .argument('<id>')
    .argument('<name>')
    .action(
      asking(async ({ client }, { json }, id: string, name: string) =>
        tell(await client.call('projects.rename', { id, name }), json),
      ),
    );
  add('trash', 'Move a project with its takes to the trash')
    .argument('<id>')
    .action(
      asking(async ({ client }, { json }, id: string) =>
        printResult(await client.call('projects.trash', { id }), json, () =>
          console.log(`In the trash; vmoba-studio projects restore ${id} takes it out.`),
        ),
      ),
    );
  add('restore', 'Take a project out of the trash')
    .argument('<id>')
    .action(
      asking(async ({ client }, { json }, id: string) => tell(await client.call('projects.restore', { id }), json)),
    );
  return projects;
}

export function takesCommand(): Command {
  const takes = new Command('takes').description('List finished clips, and save them as files');
  const add = (name: string, description: string) => contractCommand(takes, name, description);

  add('list', 'Finished clips, newest first')
    .option('--query <words>', 'words of the prompt or name')
    .option('--project <id>', 'of one project')
    .action(
      asking(async ({ client }, { json, query, project }: ContractFlags & { query?: string; project?: string }) => {
        const items = await everyPage((cursor) =>
          client.call('takes.list', {
            ...(query === undefined ? {} : { query }),
            ...(project === undefined ? {} : { projectId: project }),
            cursor,
            limit: 500,
          }),
        );
        printResult(items, json, () => {
          for (const line of table(items.map(takeRow))) console.log(line);
        });
      }),
    );
  add('save', 'Write the clip of a take to a file, as it was rendered')
    .argument('<id>')
    .argument('<file>')
    .action(
      asking(async ({ client, save }, { json }, id: string, file: string) => {
        const path = resolve(file);
        await checkWritable(path);
        const { clip } = await client.call('takes.get', { id });
        await save(clip.mediaId, path);
        printResult({ path, bytes: clip.bytes }, json, () => console.log(path));
      }),
    );
  return takes;
}

const projectRow = ({ id, takes, openRenders, name }: Project) => [id, `${takes} takes`, `${openRenders} open`, name];

const takeRow = ({ id, createdAt, clip, name }: Take) => [
  id,
  new Date(createdAt).toISOString().slice(0, 16).replace('T', ' '),
  `${clip.width}×${clip.height}×${clip.frames}`,
  formatBytes(clip.bytes),
  name,
];
