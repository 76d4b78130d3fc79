export interface Group<T> {
  /** Whisper's code. */
  language: string;
  /** The manifest's; empty where it gives none. */
  domain: string;
  members: T[];
}

/** Items by language and domain, in the order of their codes. */
export function groupsOf<T>(
  items: readonly T[],
  placeOf: (item: T) => { language: string; domain?: string | undefined },
): Group<T>[] {
  const groups = new Map<string, Group<T>>();
  for (const item of items) {
    const { language, domain = '' } = placeOf(item);
    const key = JSON.stringify([language, domain]);
    const group = groups.get(key) ?? { language, domain, members: [] };
    groups.set(key, group);
    group.members.push(item);
  }
  const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  return [...groups.values()].sort((a, b) => order(a.language, b.language) || order(a.domain, b.domain));
}
