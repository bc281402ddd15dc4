/** The reference page of the contract, as Markdown: every method and event with the fields it takes and gives. */
import { z } from 'zod';
import { attentionPolicy } from '../../contract/attentionPolicy.ts';
import { clipSettings } from '../../contract/clipSettings.ts';
import { errorShape } from '../../contract/common.ts';
import { studioErrorCodes } from '../../contract/errors.ts';
import { events, methods } from '../../contract/index.ts';
import { renderOutput, settingsChanges } from '../../contract/renderSettings.ts';
import { contractVersion } from '../../contract/studio.ts';

interface JsonSchema {
  $ref?: string;
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  items?: JsonSchema;
  prefixItems?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  additionalProperties?: JsonSchema | boolean;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
}

/** Shapes that occur again and again stand once, under their names. */
const shared: Record<string, z.ZodType> = {
  Render: methods['renders.get'].output,
  Take: methods['takes.get'].output,
  Project: methods['projects.create'].output,
  Model: methods['models.import'].output,
  Preset: methods['presets.save'].output,
  QueueStatus: methods['queue.status'].output,
  EngineStatus: methods['engine.status'].output,
  StudioStatus: methods['studio.status'].output,
  Settings: methods['settings.get'].output,
  Download: methods['models.download'].output,
  ClipExport: methods['exports.start'].output,
  PolicyForecast: methods['policies.forecast'].output,
  StepStatistics: events['renders.step'].payload.shape.step,
  LayerStatistics: events['renders.step'].payload.shape.step.shape.layers.element,
  Speedup: methods['renders.statistics'].output.shape.speedup,
  MapsHeader: methods['renders.maps'].output.shape.header,
  RenderPlan: methods['renders.statistics'].output.shape.plan.unwrap(),
  RenderProgress: events['renders.progress'].payload.shape.progress,
  CatalogueEntry: methods['models.catalogue'].output.shape.items.element,
  LibraryStatus: events['library.changed'].payload,
  ClipSettings: clipSettings,
  RenderSettings: methods['renders.create'].input.shape.settings,
  SettingsChanges: settingsChanges,
  RenderOutput: renderOutput,
  AttentionPolicy: attentionPolicy,
  Error: errorShape,
};

export function contractPage(): string {
  // What is given to a method may leave members out that are always there in what comes back.
  const names = new Map(
    Object.entries(shared).flatMap(([name, schema]) =>
      (['output', 'input'] as const).map((io) => [JSON.stringify(json(schema, io)), name] as const),
    ),
  );
  const write = new Writer(names);
  const subjects = [
    ...new Set([...Object.keys(methods), ...Object.keys(events)].map((name) => name.split('.')[0] ?? '')),
  ];
  const lines = [
    '# The contract',
    '',
    'Generated from `contract/` by `npm run docs:contract`; do not edit.',
    '',
    `Contract version ${contractVersion}. A call is \`{kind: 'call', id, method, input}\`; the answer is \`{kind: 'result', id, output}\` or \`{kind: 'failure', id, error: {code, message, field?}}\`; events are \`{kind: 'event', name, payload}\`. The encoding of messages is described in \`contract/codec.ts\`. Every method can fail with \`bad-request\` (\`field\` names the input), \`closing\`, \`library-corrupt\`, \`disk-full\` and \`io\`; further errors are named where they occur. \`?\` marks members that may be left out, with their default where there is one.`,
    '',
    `Error codes: ${studioErrorCodes.map((code) => `\`${code}\``).join(', ')}.`,
  ];
  for (const subject of subjects) {
    lines.push('', `## ${subject}`);
    for (const [name, { description, input, output }] of Object.entries(methods)) {
      if (!name.startsWith(`${subject}.`)) continue;
      lines.push('', `### \`${name}\``, '', description, '');
      lines.push(`- takes ${write.type(json(input, 'input'))}`, `- gives ${write.type(json(output, 'output'))}`);
    }
    for (const [name, { description, payload, watchersOnly }] of Object.entries(events)) {
      if (!name.startsWith(`${subject}.`)) continue;
      lines.push(
        '',
        `### Event \`${name}\``,
        '',
        `${description}${watchersOnly ? ' Only for connections that watch.' : ''}`,
        '',
      );
      lines.push(`- payload ${write.type(json(payload, 'output'))}`);
    }
  }
  lines.push('', '## Shapes');
  for (const [name, schema] of Object.entries(shared)) {
    lines.push('', `### ${name}`, '', write.type(json(schema, 'input'), true));
  }
  return `${lines.join('\n')}\n`;
}

const json = (schema: z.ZodType, io: 'input' | 'output'): JsonSchema => {
  const { $schema: _schema, ...rest } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema._zod.def.type === 'custom') jsonSchema.type = 'bytes' as 'string';
    },
  }) as JsonSchema & { $schema?: string };
  return rest;
};

class Writer {
  readonly #names: ReadonlyMap<string, string>;

  constructor(names: ReadonlyMap<string, string>) {
    this.#names = names;
  }

  /** @param open Describe the schema itself, also where it has a name. */
  type(schema: JsonSchema, open = false): string {
    const name = open ? undefined : this.#names.get(JSON.stringify(schema));
    if (name) return `[${name}](#${name.toLowerCase()})`;
    const parts = schema.anyOf ?? schema.oneOf;
    if (parts) return parts.map((part) => this.type(part)).join(' or ');
    if (schema.const !== undefined) return `\`${JSON.stringify(schema.const)}\``;
    if (schema.enum) return schema.enum.map((value) => `\`${JSON.stringify(value)}\``).join(' \\| ');
    if (schema.properties) return this.#object(schema);
    if (schema.prefixItems) return `[${schema.prefixItems.map((item) => this.type(item)).join(', ')}]`;
    if (schema.type === 'array') return `list of ${schema.items ? this.type(schema.items) : 'anything'}`;
    if (schema.type === 'object') {
      const { additionalProperties } = schema;
      if (additionalProperties === false) return 'nothing';
      return typeof additionalProperties === 'object' ? `{name: ${this.type(additionalProperties)}}` : 'an object';
    }
    return `${String(schema.type ?? 'anything')}${bounds(schema)}`;
  }

  #object({ properties = {}, required = [] }: JsonSchema): string {
    const members = Object.entries(properties).map(([name, schema]) => {
      const optional = !required.includes(name);
      const standard = schema.default === undefined ? '' : ` = \`${JSON.stringify(schema.default)}\``;
      const { default: _default, ...bare } = schema;
      return `${name}${optional ? '?' : ''}: ${this.type(bare)}${optional ? standard : ''}`;
    });
    return members.length === 0 ? 'nothing' : `{${members.join(', ')}}`;
  }
}

function bounds({ type, minimum, maximum, maxLength, pattern }: JsonSchema): string {
  if (type === 'string')
    return pattern ? ` \`${pattern}\`` : maxLength === undefined ? '' : ` ≤ ${maxLength} characters`;
  const limit = (value: number | undefined) =>
    value === undefined || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? null : value;
  const [low, high] = [limit(minimum), limit(maximum)];
  if (low === null && high === null) return '';
  return ` ${low ?? ''}…${high ?? ''}`;
}
