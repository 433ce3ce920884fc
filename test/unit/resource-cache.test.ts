// The cache that delta ADS serves: versions say what changed, and "nothing known yet" is not "nothing there".

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';

const TYPE = 'type.googleapis.com/a';
const bytes = (text: string) => Buffer.from(text);
const all = (of: Readonly<Record<string, string>>) => new Map(Object.entries(of).map(([name, text]) => [name, bytes(text)]));
const held = (cache: ResourceCache) =>
  Object.fromEntries([...(cache.resources(TYPE) ?? [])].map(([name, { value }]) => [name, Buffer.from(value).toString()]));
const version = (cache: ResourceCache, name: string) => cache.resources(TYPE)?.get(name)?.version;

test('a type that was never filled is unknown; one filled with nothing is empty', () => {
  const cache = new ResourceCache();
  assert.equal(cache.resources(TYPE), undefined);
  cache.replace(TYPE, new Map());
  assert.equal(cache.resources(TYPE)?.size, 0);
  assert.equal(cache.resources('type.googleapis.com/b'), undefined);
});

test('replace takes the place of everything', () => {
  const cache = new ResourceCache();
  cache.replace(TYPE, all({ a: '1', b: '2' }));
  cache.replace(TYPE, all({ b: '3' }));
  assert.deepEqual(held(cache), { b: '3' });
});

test('apply adds, changes and removes by name; what is named both ways is there', () => {
  const cache = new ResourceCache();
  cache.replace(TYPE, all({ a: '1', b: '2', c: '3' }));
  cache.apply(TYPE, { upserts: all({ b: '4', d: '5' }), removed: ['a', 'never-there', 'd'] });
  assert.deepEqual(held(cache), { b: '4', c: '3', d: '5' });
});

test('versions follow the bytes: equal bytes have equal versions, also in another cache and after a restart', () => {
  const [one, other] = [new ResourceCache(), new ResourceCache()];
  one.replace(TYPE, all({ a: 'same', b: 'same', c: 'different' }));
  other.apply(TYPE, { upserts: all({ x: 'same' }), removed: [] });
  assert.equal(version(one, 'a'), version(one, 'b'));
  assert.equal(version(one, 'a'), version(other, 'x'));
  assert.notEqual(version(one, 'a'), version(one, 'c'));
  const before = version(one, 'a');
  one.replace(TYPE, all({ a: 'changed' }));
  assert.notEqual(version(one, 'a'), before);
  one.replace(TYPE, all({ a: 'same' }));
  assert.equal(version(one, 'a'), before);
});

test('subscribers hear which names changed, and nothing where nothing did', () => {
  const cache = new ResourceCache();
  const heard: (readonly string[])[] = [];
  cache.subscribe((_type, names) => heard.push(names));
  cache.replace(TYPE, all({ a: '1', b: '1' }));
  cache.apply(TYPE, { upserts: all({ a: '1', b: '2', c: '3' }), removed: ['d'] });
  cache.apply(TYPE, { upserts: all({ c: '3' }), removed: ['d'] });
  cache.apply(TYPE, { upserts: all({ b: '2' }), removed: ['a', 'b'] });
  assert.deepEqual(heard, [['a', 'b'], ['b', 'c'], ['a']]);
});

test('subscribers hear the type of every change, until they stop; one that stops itself does not cost another its turn', () => {
  const cache = new ResourceCache();
  const heard: string[] = [];
  const stopFirst = cache.subscribe(() => {
    heard.push('first');
    stopFirst();
  });
  const stop = cache.subscribe((typeUrl) => heard.push(typeUrl));
  cache.replace(TYPE, new Map());
  cache.apply('type.googleapis.com/b', { upserts: new Map(), removed: [] });
  stop();
  cache.replace(TYPE, new Map());
  assert.deepEqual(heard, ['first', TYPE, 'type.googleapis.com/b']);
});
