import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PolicyStatus, type PolicyVerdict } from '../../src/control/objects/policy-status.ts';
import { HandfastError } from '../../src/errors.ts';
import { openLog } from '../../src/observe/log.ts';

const verdict = (name: string): PolicyVerdict => ({
  path: `/apis/g/v1/namespaces/foo/x/${name}/status`,
  generation: 1,
  conditions: [],
  refusal: undefined,
});

test('statuses that may not be written hold up none of the others, however often something changes', async () => {
  const { log, close } = openLog({ role: 'test', level: 'silent' });
  const written = new Set<string>();
  const ending = new AbortController();
  let tries = 0;
  let done: () => void = () => undefined;
  const finished = new Promise<void>((resolve) => {
    done = resolve;
  });
  const all = [
    ...Array.from({ length: 20 }, (_, i) => verdict(`refused-${i}`)),
    ...Array.from({ length: 50 }, (_, i) => verdict(`good-${i}`)),
  ];
  const status = new PolicyStatus({
    api: {
      request: async ({ path }) => {
        tries++;
        // Each answer finds that something has changed meanwhile.
        status.replace(all.filter((one) => !written.has(one.path)));
        if (path.includes('refused')) throw new HandfastError('KUBE_REFUSED', `PATCH ${path}: forbidden`);
        written.add(path);
        if (written.size === 50) done();
        return {};
      },
    },
    log,
    now: () => 0,
  });
  status.replace(all);
  const running = status.run(ending.signal);
  await finished;
  ending.abort();
  await running;
  close();
  assert.ok(tries < 400, `${tries} tries`);
});

test('a status is written again when the version, the verdict or the reason is another, and not otherwise', async () => {
  const { log, close } = openLog({ role: 'test', level: 'silent' });
  const ending = new AbortController();
  const bodies: { status: { conditions: Record<string, unknown>[] } }[] = [];
  let wake: () => void = () => undefined;
  const status = new PolicyStatus({
    api: {
      request: async ({ body }) => {
        bodies.push(body as (typeof bodies)[number]);
        wake();
        return {};
      },
    },
    log,
    now: () => 0,
  });
  const running = status.run(ending.signal);
  const write = async (of: PolicyVerdict) => {
    const written = new Promise<void>((resolve) => {
      wake = resolve;
    });
    status.replace([of]);
    await written;
    return bodies.at(-1)?.status.conditions ?? [];
  };
  const conditions = await write(verdict('a'));
  status.replace([{ ...verdict('a'), conditions }]);
  const refused = await write({ ...verdict('a'), conditions, refusal: 'x' });
  assert.equal(refused[0]?.status, 'False');
  await write({ ...verdict('a'), conditions: refused, refusal: 'y' });
  await write({ ...verdict('a'), conditions, generation: 2 });
  assert.equal(bodies.length, 4);
  const others = [{ type: 'Theirs', status: 'True' }];
  const some = await write({ ...verdict('a'), conditions: [...others, ...conditions], reach: { selected: 3, upToDate: 2 } });
  assert.deepEqual(
    some.map(({ type, status, reason, message }) => [type, status, reason, message]),
    [
      ['Theirs', 'True', undefined, undefined],
      ['Accepted', 'True', 'Accepted', 'in force'],
      ['Programmed', 'False', 'Pending', '2/3 proxies up to date'],
    ],
  );
  status.replace([{ ...verdict('a'), conditions: some, reach: { selected: 3, upToDate: 2 } }]);
  const all = await write({ ...verdict('a'), conditions: some, reach: { selected: 3, upToDate: 3 } });
  assert.deepEqual(
    all.map(({ type, status }) => [type, status]),
    [
      ['Theirs', 'True'],
      ['Accepted', 'True'],
      ['Programmed', 'True'],
    ],
  );
  const taken = await write({ ...verdict('a'), conditions: all, refusal: 'x', reach: { selected: 3, upToDate: 3 } });
  assert.deepEqual(
    taken.map(({ type, status }) => [type, status]),
    [
      ['Theirs', 'True'],
      ['Accepted', 'False'],
    ],
    'of a version that is not in force nobody is counted',
  );
  const unknown = { ...verdict('a'), conditions: all, reach: 'unknown' } as const;
  status.replace([unknown]);
  const kept = await write({ ...unknown, generation: 2 });
  assert.deepEqual(
    kept.map(({ type, status, observedGeneration }) => [type, status, observedGeneration]),
    [
      ['Theirs', 'True', undefined],
      ['Programmed', 'True', 1],
      ['Accepted', 'True', 2],
    ],
    'what is said of the version before stays what it is',
  );
  assert.equal(bodies.length, 8);
  ending.abort();
  await running;
  close();
});
