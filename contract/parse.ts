/** Parsing at a trust boundary: the first thing that is wrong becomes one StudioError that names its field. */
import type { z } from 'zod';
import { StudioError } from './errors.ts';

/** Errors: bad-request, with the path of the field as `field`. */
export function parseRequest<Schema extends z.ZodType>(schema: Schema, input: unknown): z.infer<Schema> {
  const result = schema.safeParse(input, { reportInput: true });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const extra = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const path = [...(issue?.path ?? []), ...(extra === undefined ? [] : [extra])];
  const field = path.map(String).join('.');
  throw new StudioError('bad-request', sentence(field, issue), field === '' ? {} : { field });
}

function sentence(field: string, issue: z.core.$ZodIssue | undefined): string {
  const name = field === '' ? 'The request' : field;
  if (!issue) return `${name} is not valid.`;
  switch (issue.code) {
    case 'unrecognized_keys':
      return `${name} is not known.`;
    case 'invalid_type':
      if (issue.input === undefined) return `${name} is missing.`;
      return `${name} must be ${issue.expected === 'int' ? 'a whole number' : `a ${issue.expected}`}${shown(issue.input)}.`;
    case 'too_small':
      if (issue.origin === 'string') return `${name} is empty.`;
      return `${name} must be ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}${shown(issue.input)}.`;
    case 'too_big':
      return `${name} must be at most ${issue.maximum}${shown(issue.input)}.`;
    case 'invalid_value':
      return `${name} must be one of ${issue.values.map(String).join(', ')}${shown(issue.input)}.`;
    case 'custom':
    case 'invalid_format':
      return `${name} ${issue.message}.`;
    default:
      return `${name}: ${issue.message}.`;
  }
}

/** The offending value where it is short enough to help. */
function shown(input: unknown): string {
  if (typeof input === 'number') return `, not ${input}`;
  if (typeof input === 'string' && input.length <= 40) return `, not '${input}'`;
  return '';
}
