// Containers and volumes of ours as they come back from an API server: what it fills in where nothing was said is no difference.

import { isDeepStrictEqual } from 'node:util';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { PROBERS_VARIABLE } from './own-parts.ts';
import { parseQuantity } from './quantity.ts';

type Json = Readonly<Record<string, unknown>>;

const CONTAINER: Json = { terminationMessagePath: '/dev/termination-log', terminationMessagePolicy: 'File' };
const PROBE: Json = { initialDelaySeconds: 0, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 };
const PROBES = ['startupProbe', 'readinessProbe', 'livenessProbe'];

/** The members of a container that say something else than what was written; one that was added is among them. */
export function containerDifferences({ written, found }: { written: Json; found: Json }): string[] {
  const [wanted, there] = [container(written), container(found)];
  return [...new Set([...Object.keys(wanted), ...Object.keys(there)])].filter((name) => {
    if (name === 'resources') return !includes({ written: wanted[name], found: there[name] });
    // How capacity changes is nobody's concern; that an image is asked for anew each time is a cluster's own rule.
    if (name === 'resizePolicy' || (name === 'imagePullPolicy' && there[name] === 'Always')) return false;
    return !isDeepStrictEqual(wanted[name], there[name]);
  });
}

export function isSameVolume({ written, found }: { written: Json; found: Json }): boolean {
  return isDeepStrictEqual(volume(written), volume(found));
}

/** Without what the sidecar is to ask, which is written anew from the probes. */
function container(of: Json): Json {
  const said = stripped(of);
  const probes = PROBES.flatMap((name) => {
    const probe = said[name];
    if (!isJsonObject(probe)) return [];
    const httpGet = isJsonObject(probe.httpGet) ? { httpGet: { scheme: 'HTTP', ...probe.httpGet } } : {};
    return [[name, { ...PROBE, ...probe, ...httpGet }] as const];
  });
  const env = Array.isArray(said.env) ? { env: said.env.filter((entry) => !isProbers(entry)).map(variable) } : {};
  const resources = { resources: isJsonObject(said.resources) ? said.resources : {} };
  const command = Array.isArray(said.command) && said.command.length === 0 ? { command: undefined } : {};
  return stripped({ ...CONTAINER, ...said, ...Object.fromEntries(probes), ...env, ...resources, ...command });
}

/** Of text, and nothing beside it: what is not is compared. */
function isProbers(entry: unknown): boolean {
  return isJsonObject(entry) && entry.name === PROBERS_VARIABLE && Object.keys(entry).every((name) => name === 'name' || name === 'value');
}

function variable(entry: unknown): unknown {
  if (!isJsonObject(entry) || !isJsonObject(entry.valueFrom) || !isJsonObject(entry.valueFrom.fieldRef)) return entry;
  return { ...entry, valueFrom: { ...entry.valueFrom, fieldRef: { apiVersion: 'v1', ...entry.valueFrom.fieldRef } } };
}

function volume(of: Json): Json {
  const said = stripped(of);
  if (!isJsonObject(said.projected)) return said;
  const { sources } = said.projected;
  return {
    ...said,
    projected: { defaultMode: 0o644, ...said.projected, ...(Array.isArray(sources) ? { sources: sources.map(source) } : {}) },
  };
}

/** Of a file that shows a field of the pod: in which version of the API it is named. */
function source(of: unknown): unknown {
  if (!isJsonObject(of) || !isJsonObject(of.downwardAPI) || !Array.isArray(of.downwardAPI.items)) return of;
  const items = of.downwardAPI.items.map((item: unknown) =>
    isJsonObject(item) && isJsonObject(item.fieldRef) ? { ...item, fieldRef: { apiVersion: 'v1', ...item.fieldRef } } : item,
  );
  return { ...of, downwardAPI: { ...of.downwardAPI, items } };
}

/** A LimitRange adds amounts where none were said, and quantities come back in another spelling. */
function includes({ written, found }: { written: unknown; found: unknown }): boolean {
  if (!isJsonObject(written))
    return typeof found === 'string' && typeof written === 'string' && parseQuantity(found) === parseQuantity(written);
  return isJsonObject(found) && Object.entries(written).every(([name, value]) => includes({ written: value, found: found[name] }));
}

/** Without members that are null or undefined. */
function stripped(of: Json): Json {
  return Object.fromEntries(
    Object.entries(of).flatMap(([name, value]) => (value === undefined || value === null ? [] : [[name, clean(value)]])),
  );
}

function clean(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(clean);
  return isJsonObject(value) ? stripped(value) : value;
}
