// From YAML text to a set of objects. Everything wrong is collected, each with file, line and what would be accepted; one problem refuses the whole set.

import { HandfastError } from '../../errors.ts';
import { defaultMeshConfig, type MeshConfig } from '../../policy/kinds/mesh-config.ts';
import { collect } from './collect-objects.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { ObjectEntry } from './object-kinds.ts';
import { type ObjectFile, parseFile } from './parse-file.ts';

export type { ObjectFile } from './parse-file.ts';
export { withProposed } from './with-proposed.ts';

/**
 * Throws OBJECT_INVALID whose message has one line a problem: `file:line: what is wrong; what is accepted`. `config`: what holds where the files have no MeshConfig,
 * such as the present one for objects that are proposed.
 */
export function parseObjects(files: readonly ObjectFile[], config: MeshConfig = defaultMeshConfig): MeshObjects {
  return new ObjectParser().parse(files, config);
}

interface ParsedFile {
  readonly text: string;
  readonly entries: readonly ObjectEntry[];
  readonly problems: readonly string[];
}

/** Parses a file again only when its text changed, so that the objects of the others stay the same ones. */
export class ObjectParser {
  #files = new Map<string, ParsedFile>();

  /** Throws OBJECT_INVALID as `parseObjects` does. */
  parse(files: readonly ObjectFile[], config: MeshConfig = defaultMeshConfig): MeshObjects {
    const parsed = files.map((file): [name: string, ParsedFile] => {
      const known = this.#files.get(file.name);
      if (known?.text === file.text) return [file.name, known];
      const problems: string[] = [];
      return [file.name, { text: file.text, entries: parseFile(file, problems), problems }];
    });
    this.#files = new Map(parsed);
    const problems = parsed.flatMap(([, file]) => file.problems);
    const objects = collect(
      parsed.flatMap(([, file]) => file.entries),
      problems,
      config,
    );
    if (problems.length > 0) throw new HandfastError('OBJECT_INVALID', problems.join('\n'));
    return objects;
  }
}
