// The CA's roots and who of them signs: stable -> prepared -> active -> stable, in stages that each survive a crash between any two of their
// steps and may be asked for again.

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HandfastError } from '../errors.ts';
import { readOrCreate, readPrivate, readStateJson, removePrivate, replacePrivate } from '../store/state-file.ts';
import { type CaFilesOptions, firstRoot, openIntermediate, openRoot } from './ca-files.ts';
import { type CaKeyPair, INTERMEDIATE_LIFETIME, makeIntermediate, makeRoot, openCaKeyPair } from './ca-key-pair.ts';
import {
  firstState,
  formatRotation,
  intermediateFile,
  parseRotation,
  type RotationStage,
  type RotationState,
  refuseOrphanedRoots,
  rootFile,
  rotationPath,
} from './rotation-state.ts';

export interface RotationOptions extends CaFilesOptions {
  /** Called before every change on disk: a test stops there, as a crash would. */
  readonly beforeStep?: (step: string) => void;
}

/** What signs at present. Replaced whole, never changed. */
export interface Hierarchy {
  readonly root: CaKeyPair;
  readonly intermediate: CaKeyPair;
}

const MAX_NAMED = 10;

export class RootRotation {
  readonly #options: RotationOptions;
  #state: RotationState;
  #issuing: Hierarchy;
  /** The root that is published beside the issuing one: the next while prepared, the old while active. */
  #other: CaKeyPair | undefined;

  private constructor(options: RotationOptions, found: { state: RotationState; issuing: Hierarchy; other: CaKeyPair | undefined }) {
    this.#options = options;
    this.#state = found.state;
    this.#issuing = found.issuing;
    this.#other = found.other;
  }

  /** True once a CA has been made in the directory under a version that knows rotations and the ledger. */
  static async isInitialised(dir: string): Promise<boolean> {
    return (await readPrivate(rotationPath(dir))) !== undefined;
  }

  /** Reads the roots, or makes the first one in an empty directory. Throws STATE_INVALID for files that cannot be this CA's. */
  static async open(options: RotationOptions): Promise<RootRotation> {
    const { dir } = options;
    const known = await readStateJson(rotationPath(dir), parseRotation);
    if (known === undefined) refuseOrphanedRoots(await readdir(dir), dir);
    const state = known ?? firstState;
    const root = known === undefined ? await firstRoot(options) : await openRoot(state.generation, options);
    const intermediate = await openIntermediate(root, state.generation, options);
    const otherGeneration = { stable: undefined, prepared: state.generation + 1, active: state.generation - 1 }[state.stage];
    const other = otherGeneration === undefined ? undefined : await openRoot(otherGeneration, options);
    const rotation = new RootRotation(options, { state, issuing: { root, intermediate }, other });
    if (known === undefined) await rotation.#commit(state);
    await rotation.#discard();
    return rotation;
  }

  get stage(): RotationStage {
    return this.#state.stage;
  }

  get issuing(): Hierarchy {
    return this.#issuing;
  }

  /** Roots as they are published, the one to be preferred first: agents renew when that one changes. */
  get roots(): readonly CaKeyPair[] {
    return this.#other === undefined ? [this.#issuing.root] : [this.#issuing.root, this.#other];
  }

  get bundlePem(): string {
    return this.roots.map(({ certificatePem }) => certificatePem).join('');
  }

  /** The root that is on its way out; undefined while none is. */
  get oldRoot(): CaKeyPair | undefined {
    return this.#state.stage === 'active' ? this.#other : undefined;
  }

  /** stable -> prepared: makes the next root. It signs nothing until everybody knows it. */
  async prepare(): Promise<void> {
    if (this.stage === 'prepared') return;
    if (this.stage === 'active') throw refused('a rotation is under way already: retire the old root before the next one is prepared');
    await this.#discard();
    const next = this.#state.generation + 1;
    // Left by a crash before it was ever published: another one is as good.
    await this.#remove(rootFile(next));
    this.#step(`write ${rootFile(next)}`);
    await readOrCreate(join(this.#options.dir, rootFile(next)), () => makeRoot(this.#options));
    const other = await openRoot(next, this.#options);
    await this.#commit({ ...this.#state, stage: 'prepared' });
    this.#other = other;
  }

  /** prepared -> active: the next root signs from here. `behind` are live nodes that do not know it yet; they would trust nobody new. */
  async activate({ behind, force = false }: { behind: readonly string[]; force?: boolean }): Promise<void> {
    if (this.stage === 'active') return;
    const next = this.#other;
    if (next === undefined) throw refused('no next root has been prepared: do that first, and wait until every node has its bundle');
    if (behind.length > 0 && !force) {
      const named = `${behind.slice(0, MAX_NAMED).join(', ')}${behind.length > MAX_NAMED ? ', ...' : ''}`;
      throw refused(`${behind.length} live nodes do not have the next root yet: ${named}; wait for them, or force it`);
    }
    const generation = this.#state.generation + 1;
    await this.#remove(intermediateFile(generation));
    this.#step(`write ${intermediateFile(generation)}`);
    const intermediate = await openIntermediate(next, generation, this.#options);
    await this.#commit({ ...this.#state, stage: 'active', generation });
    this.#other = this.#issuing.root;
    this.#issuing = { root: next, intermediate };
  }

  /** active -> stable: withdraws the old root. `liveBelowOld` certificates would be cut off by it. */
  async retire({ liveBelowOld, force = false }: { liveBelowOld: number; force?: boolean }): Promise<void> {
    const { stage, generation } = this.#state;
    if (stage === 'stable' && generation > 1) return this.#discard();
    if (stage === 'stable') throw refused('there is no old root to retire: prepare and activate the next one first');
    if (stage === 'prepared') throw refused('the old root still signs: activate the next one first, or abort');
    if (liveBelowOld > 0 && !force) {
      throw refused(`${liveBelowOld} certificates below the old root have not expired: wait for their rotation, or force it`);
    }
    await this.#commit({ stage: 'stable', generation, discard: [rootFile(generation - 1), intermediateFile(generation - 1)] });
    this.#other = undefined;
    await this.#discard();
  }

  /** prepared -> stable, as if the next root had never been. */
  async abort(): Promise<void> {
    const { stage, generation } = this.#state;
    if (stage === 'active') throw refused('the next root signs already: go on and retire the old one');
    if (stage === 'stable') return this.#discard();
    await this.#commit({ stage: 'stable', generation, discard: [rootFile(generation + 1)] });
    this.#other = undefined;
    await this.#discard();
  }

  /** Whether two thirds of the intermediate's life are gone. */
  intermediateIsDue(now: number): boolean {
    const { root, intermediate } = this.#issuing;
    const [from, to] = [intermediate.certificate.validFromDate.getTime(), intermediate.certificate.validToDate.getTime()];
    const rootEnd = root.certificate.validToDate.getTime();
    // Near the root's end a new one would live no longer than the old.
    return to - now <= (to - from) / 3 && Math.min(now + INTERMEDIATE_LIFETIME, rootEnd) > to;
  }

  /** A new intermediate when it is time. True when there is one: leaves signed by either verify alike. */
  async renewIntermediate(now: number): Promise<boolean> {
    if (!this.intermediateIsDue(now)) return false;
    const { root } = this.#issuing;
    const path = join(this.#options.dir, intermediateFile(this.#state.generation));
    const text = await makeIntermediate(root, this.#options);
    const next = await openCaKeyPair(text, { path, keys: this.#options.keys });
    this.#step(`replace ${path}`);
    await replacePrivate(path, text);
    this.#issuing = { root, intermediate: next };
    return true;
  }

  /** The one moment in which a stage begins. */
  async #commit(state: RotationState): Promise<void> {
    this.#step(`commit ${state.stage}`);
    await replacePrivate(rotationPath(this.#options.dir), formatRotation(state));
    this.#state = state;
  }

  async #discard(): Promise<void> {
    if (this.#state.discard.length === 0) return;
    for (const file of this.#state.discard) await this.#remove(file);
    await this.#commit({ ...this.#state, discard: [] });
  }

  async #remove(file: string): Promise<void> {
    this.#step(`remove ${file}`);
    await removePrivate(join(this.#options.dir, file));
  }

  #step(step: string): void {
    this.#options.beforeStep?.(step);
  }
}

function refused(reason: string): HandfastError {
  return new HandfastError('STAGE_REFUSED', reason);
}
