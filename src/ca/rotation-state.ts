// Where a root rotation stands, as rotation.json has it. Replacing that one file is the commit of every stage: all other files are made before
// it and removed after it, so a crash between any two leaves a whole stage and at most a file that nobody names.

import { join } from 'node:path';
import { HandfastError } from '../errors.ts';
import { type Fields, listField, onlyFields, textField, wholeField } from './state-fields.ts';

/** `stable`: one root. `prepared`: the next one is published, the old one signs. `active`: the next one signs, the old one is still published. */
export type RotationStage = 'stable' | 'prepared' | 'active';

/** `generation` counts the roots that have signed; `discard` are files to be removed, whoever gets to it. */
export interface RotationState {
  readonly stage: RotationStage;
  readonly generation: number;
  readonly discard: readonly string[];
}

export const firstState: RotationState = { stage: 'stable', generation: 1, discard: [] };

const CA_FILE = /^(root|intermediate)(-\d{1,9})?\.pem$/;
const stages: readonly RotationStage[] = ['stable', 'prepared', 'active'];

export function rotationPath(dir: string): string {
  return join(dir, 'rotation.json');
}

export function rootFile(generation: number): string {
  return generation === 1 ? 'root.pem' : `root-${generation}.pem`;
}

export function intermediateFile(generation: number): string {
  return generation === 1 ? 'intermediate.pem' : `intermediate-${generation}.pem`;
}

export function formatRotation(state: RotationState): string {
  return `${JSON.stringify({ version: 1, ...state, discard: state.discard.map((file) => ({ file })) }, undefined, 2)}\n`;
}

/** Throws a plain Error. */
export function parseRotation(fields: Fields): RotationState {
  onlyFields(fields, ['version', 'stage', 'generation', 'discard']);
  if (fields.version !== 1) throw new Error(`version ${JSON.stringify(fields.version)} is not known`);
  const stage = stages.find((known) => known === fields.stage);
  const generation = wholeField(fields, 'generation');
  if (stage === undefined) throw new Error(`stage ${JSON.stringify(fields.stage)} is not known`);
  if (generation < (stage === 'active' ? 2 : 1)) throw new Error(`generation ${generation} cannot be ${stage}`);
  const discard = listField(fields, 'discard', (entry) => textField(entry, 'file', CA_FILE));
  const used = [generation, stage === 'prepared' ? generation + 1 : stage === 'active' ? generation - 1 : generation];
  const needed = discard.find((file) => used.some((each) => file === rootFile(each) || file === intermediateFile(each)));
  if (needed !== undefined) throw new Error(`it discards ${needed}, which is in use`);
  return { stage, generation, discard };
}

/** Without rotation.json a directory is new, or of before there were rotations. Throws STATE_INVALID when it can be neither. */
export function refuseOrphanedRoots(names: readonly string[], dir: string): void {
  const orphan = names.find((name) => /^(root|intermediate)-\d+\.pem$/.test(name));
  if (orphan === undefined) return;
  throw new HandfastError(
    'STATE_INVALID',
    `${rotationPath(dir)} is missing, but ${orphan} is there: which root signs cannot be known; restore it from a backup`,
  );
}
