/** Paths out of a corpus' tables, which may name what lies in its folder and nothing else. */
import { realpathSync, statSync } from 'node:fs';
import { isAbsolute, join, relative, resolve, sep } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';

const leaves = (name: string, why: string): DistilWhisperError =>
  new DistilWhisperError(
    'ERR_MANIFEST',
    `expected audio within the corpus' folder, got ${JSON.stringify(name.slice(0, 120))}, ${why}`,
  );

/** Refuses a name that is absolute or climbs out of where it starts from, on any system. Throws ERR_MANIFEST. */
export function checkRelative(name: string): void {
  if (isAbsolute(name) || /^([a-z]:)?[\\/]/i.test(name)) throw leaves(name, 'an absolute path');
  if (name.split(/[\\/]/).includes('..')) throw leaves(name, "a path with '..'");
}

/** The folder that what a corpus' links lead to must lie in: its own, or the whole of its repository in the hub's cache. */
function boundary(root: string): string {
  const real = realpathSync(root);
  const parts = real.split(sep);
  const at = parts.lastIndexOf('snapshots');
  const repository = parts[at - 1];
  return at > 0 && /^(datasets|models)--/.test(repository ?? '') ? parts.slice(0, at).join(sep) : real;
}

/** Finds files by the names that a corpus' tables have for them. */
export class Confined {
  private readonly boundary: string;

  /** `folders`: where a name is looked for, relative to the root. */
  constructor(
    private readonly root: string,
    private readonly folders: readonly string[],
  ) {
    this.boundary = boundary(root);
  }

  /** The file's absolute path; null where there is none. Throws ERR_MANIFEST for a name, or a link, that leads out of the corpus. */
  find(name: string): string | null {
    checkRelative(name);
    for (const folder of this.folders) {
      const path = resolve(this.root, folder, name);
      if (!isFile(path)) continue;
      const real = realpathSync(path);
      const way = relative(this.boundary, real);
      if (way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way)) throw leaves(name, `a link to ${real}`);
      return path;
    }
    return null;
  }
}

export function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  } catch {
    return false;
  }
}

export function isDirectory(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  } catch {
    return false;
  }
}

/** The first of some names that is there below a folder. */
export const firstOf = (folder: string, names: readonly string[]): string | undefined =>
  names.map((name) => join(folder, name)).find(isFile);
