import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { format, resolveConfig } from 'prettier';
import { afterAll, afterEach, describe, expect, expectTypeOf, test } from 'vitest';
import { z } from 'zod';
import { decodeClientMessage, decodeStudioMessage, encodeMessage } from '../../contract/codec.ts';
import { fromErrorShape, StudioError, studioErrorCodes, toErrorShape } from '../../contract/errors.ts';
import { type Handlers, type MethodName, type MethodOutput, methods, type ParsedInput } from '../../contract/index.ts';
import { Connection } from '../../main/studio/connection.ts';
import type { CallContext } from '../../main/studio/handlers/context.ts';
import type { coreHandlers, StandingMethod } from '../../main/studio/handlers/index.ts';
import { contractPage } from '../../scripts/lib/contractPage.ts';
import { projectRoot } from '../support/cli.ts';
import { settings, StudioTests } from '../support/studio.ts';

// The same every time; another number looks elsewhere.
fc.configureGlobal({ seed: Number(process.env['FUZZ_SEED'] ?? 1) });

const tests = new StudioTests();
afterEach(() => tests.closeOwn());
afterAll(() => tests.end());

describe('types', () => {
  test('there is a handler for every method, and none besides', () => {
    type Served = ReturnType<typeof coreHandlers>;
    expectTypeOf<keyof Served | StandingMethod>().toEqualTypeOf<MethodName>();
    expectTypeOf<keyof Served & StandingMethod>().toEqualTypeOf<never>();
  });

  test('handlers take what is parsed and give what is promised', () => {
    type All = Handlers<CallContext>;
    expectTypeOf<Parameters<All['renders.move']>[0]>().toEqualTypeOf<ParsedInput<'renders.move'>>();
    expectTypeOf<Awaited<ReturnType<All['takes.list']>>>().toEqualTypeOf<MethodOutput<'takes.list'>>();
    expectTypeOf<ParsedInput<'renders.create'>['place']>().toEqualTypeOf<'last' | 'next'>();
  });
});

test('the reference page says what the contract says', async () => {
  const path = `${projectRoot}docs/CONTRACT.md`;
  const page = await format(contractPage(), { ...(await resolveConfig(path)), plugins: [], parser: 'markdown' });
  expect(readFileSync(path, 'utf8'), 'run npm run docs:contract').toBe(page);
});

describe('messages', () => {
  const json = fc.jsonValue({ maxDepth: 4 });
  /** JSON with byte arrays in it. */
  const mixed = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      json,
      fc.uint8Array({ maxLength: 20 }),
      fc.array(tie('tree'), { maxLength: 4 }),
      fc.dictionary(fc.string({ maxLength: 8 }), tie('tree'), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).tree;

  test('come out as they went in, bytes included', () => {
    fc.assert(
      fc.property(mixed, fc.nat(), (input, id) => {
        fc.pre(depthOf(input) <= 12 && bytesIn(input) <= 64);
        const message = { kind: 'call', id, method: 'a.b', input } as const;
        expect(decodeClientMessage(encodeMessage(message))).toEqual(
          JSON.parse(JSON.stringify(message), undefined) && message,
        );
      }),
      { numRuns: 300 },
    );
  });

  test('that are anything else are refused with bad-request', () => {
    const whole = encodeMessage({ kind: 'call', id: 1, method: 'uploads.append', input: { data: new Uint8Array(9) } });
    const broken = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      // One changed byte, or a cut.
      fc.tuple(fc.nat(whole.length - 1), fc.nat(255)).map(([at, value]) => whole.with(at, value)),
      fc.nat(whole.length - 1).map((length) => whole.slice(0, length)),
      json.map((value) => framed(JSON.stringify(value))),
      fc.constantFrom(
        framed('['.repeat(20_000)),
        framed('{"message":{"__proto__":null},"attachments":[{"path":["__proto__"],"bytes":0}]}'),
        framed('{"message":[],"attachments":[{"path":["length"],"bytes":0}]}'),
        framed(
          '{"message":{"kind":"call","id":1,"method":"a","input":null},"attachments":[{"path":["kind"],"bytes":0}]}',
        ),
      ),
    );
    fc.assert(
      fc.property(broken, (data) => {
        for (const decode of [decodeClientMessage, decodeStudioMessage]) {
          try {
            decode(data);
          } catch (error) {
            expect(error).toMatchObject({ name: 'StudioError', code: 'bad-request' });
          }
        }
      }),
      { numRuns: 300 },
    );
    expect(({} as Record<string, unknown>)['0']).toBeUndefined();
  });

  test('errors keep code, words and field, and nothing else', () => {
    const error = new StudioError('bad-request', 'no', { field: 'a.b', cause: new Error('secret') });
    expect(fromErrorShape(toErrorShape(error))).toMatchObject({ code: 'bad-request', message: 'no', field: 'a.b' });
    expect(toErrorShape(new TypeError('x is not a function'))).toEqual({
      code: 'internal',
      message: 'x is not a function',
    });
  });
});

describe('every method, asked anything', () => {
  /** What must not be called at random: it would end what is tested, or reach out of the test's folder. */
  const left = new Set<MethodName>(['models.download']);
  const names = (Object.keys(methods) as MethodName[]).filter((name) => !left.has(name));

  test.each(names)('%s answers or refuses with a typed error', async (name) => {
    const { studio } = await tests.shared();
    const inputs = fc.oneof(
      { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
      { weight: 6, arbitrary: arbitraryFor(methods[name].input) },
    );
    await fc.assert(
      fc.asyncProperty(inputs, async (input) => {
        const outcome = await studio.call(name, input, { connection: 'fuzz' }).then(
          (output) => methods[name].output.safeParse(output).error?.message ?? 'fine',
          (error: unknown) => (error instanceof StudioError ? error : `not a StudioError: ${String(error)}`),
        );
        if (!(outcome instanceof StudioError)) {
          expect(outcome).toBe('fine');
          return;
        }
        expect(studioErrorCodes).toContain(outcome.code);
        expect([outcome.code, outcome.message]).not.toEqual(['internal', outcome.message]);
        expect(outcome.message).toMatch(/\S/);
      }),
      { numRuns: 15, interruptAfterTimeLimit: 4000 },
    );
  });

  test('and what is no method, or nested without end, too', async () => {
    const { studio } = await tests.shared();
    const deep = JSON.parse('['.repeat(5000) + ']'.repeat(5000)) as unknown;
    for (const [name, input] of [
      ['toString', {}],
      ['__proto__', {}],
      ['renders', {}],
      ['settings.update', { client: { deep } }],
      ['renders.create', deep],
    ] as const) {
      await expect(studio.call(name, input, { connection: 'fuzz' })).rejects.toMatchObject({ code: 'bad-request' });
    }
  });

  test('settings that clients keep are bounded', async () => {
    const { client } = await tests.shared();
    const much = { client: { much: 'x'.repeat(1024 * 1024) } };
    await expect(client.call('settings.update', much)).rejects.toMatchObject({ code: 'too-large', field: 'client' });
    await client.call('settings.update', { client: { window: { width: 800 }, gone: 1 } });
    expect((await client.call('settings.update', { client: { gone: null } })).client).toEqual({
      window: { width: 800 },
    });
  });

  test('a connection survives what it is sent', async () => {
    const { studio } = await tests.shared();
    const sent: Uint8Array[] = [];
    const connection = new Connection(studio, 'hostile', { send: (message) => sent.push(message) });
    await expect(connection.receive(new Uint8Array([1, 2, 3]))).rejects.toMatchObject({ code: 'bad-request' });
    await connection.receive(encodeMessage({ kind: 'call', id: 7, method: 'no.such', input: null }));
    const answers = sent.map(decodeStudioMessage).filter((message) => message.kind === 'failure');
    expect(answers).toMatchObject([{ id: 7, error: { code: 'bad-request', field: 'method' } }]);
    connection.close();
  });
});

/** Values of about the right shape: right ones, and each part wrong now and then. */
function arbitraryFor(schema: z.ZodType): fc.Arbitrary<unknown> {
  const right = rightFor(schema);
  return fc.oneof({ weight: 9, arbitrary: right }, { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 1 }) });
}

function rightFor(schema: z.ZodType): fc.Arbitrary<unknown> {
  if (schema instanceof z.ZodObject) {
    const shape = schema.shape as Record<string, z.ZodType>;
    if ('seed' in shape && 'policy' in shape)
      return fc
        .record({ change: fc.constantFrom(...Object.keys(shape)), value: fc.jsonValue({ maxDepth: 1 }) })
        .map(({ change, value }) => ({ ...settings(), [change]: value }));
    const members = Object.fromEntries(Object.entries(shape).map(([name, member]) => [name, arbitraryFor(member)]));
    const required = Object.entries(shape).flatMap(([name, member]) =>
      member.safeParse(undefined).success ? [] : [name],
    );
    return fc.record(members, { requiredKeys: required, noNullPrototype: true });
  }
  if (
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodNullable ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  )
    return rightFor(schema.unwrap() as z.ZodType);
  if (schema instanceof z.ZodArray)
    return fc.array(arbitraryFor(schema.element as z.ZodType), { minLength: 1, maxLength: 3 });
  if (schema instanceof z.ZodUnion) return fc.oneof(...(schema.options as z.ZodType[]).map(arbitraryFor));
  if (schema instanceof z.ZodEnum) return fc.constantFrom(...schema.options);
  if (schema instanceof z.ZodBoolean) return fc.boolean();
  if (schema instanceof z.ZodNumber) return fc.oneof(fc.nat(70), fc.double(), fc.integer());
  if (schema instanceof z.ZodString)
    return fc.oneof(
      fc.string(),
      fc.constantFrom('nano', 'test', '/etc/passwd', '../..', '/dev/zero', '', '\0'),
      idLike(schema),
    );
  return fc.oneof(fc.uint8Array({ maxLength: 50 }), fc.jsonValue({ maxDepth: 2 }));
}

function idLike(schema: z.ZodString): fc.Arbitrary<string> {
  const prefix = ['rnd', 'tak', 'prj', 'pre', 'swp', 'exp', 'dwn', 'upl'].find(
    (kind) => schema.safeParse(`${kind}_${'0'.repeat(20)}`).success,
  );
  return fc.constant(`${prefix ?? 'xyz'}_${'0'.repeat(20)}`);
}

function framed(header: string): Uint8Array {
  const head = Buffer.from(header);
  const data = Buffer.alloc(4 + head.length);
  data.writeUInt32LE(head.length);
  head.copy(data, 4);
  return new Uint8Array(data);
}

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

function bytesIn(value: unknown): number {
  if (value instanceof Uint8Array) return 1;
  return typeof value === 'object' && value !== null
    ? Object.values(value).reduce((sum: number, item) => sum + bytesIn(item), 0)
    : 0;
}
