import type { Task } from '../data/index.js';

export interface Group<T> {
  /** Whisper's code. */
  language: string;
  /** The manifest's; empty where it gives none. */
  domain: string;
  task: Task;
  members: T[];
}

/** Where an item belongs; without a task it is transcribed. */
interface Place {
  language: string;
  domain?: string | undefined;
  task?: Task | undefined;
}

/** Items by language, domain and task, in the order of their codes. */
export function groupsOf<T>(items: readonly T[], placeOf: (item: T) => Place): Group<T>[] {
  const groups = new Map<string, Group<T>>();
  for (const item of items) {
    const { language, domain = '', task = 'transcribe' } = placeOf(item);
    const key = JSON.stringify([language, domain, task]);
    const group = groups.get(key) ?? { language, domain, task, members: [] };
    groups.set(key, group);
    group.members.push(item);
  }
  const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  return [...groups.values()].sort(
    (a, b) => order(a.language, b.language) || order(a.domain, b.domain) || order(a.task, b.task),
  );
}
