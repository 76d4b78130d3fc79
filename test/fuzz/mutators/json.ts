/** JSON by its tree: types swapped, values at the ends of their ranges, depth, names that are dangerous, doubled or missing. */
import type { Random } from '../random.js';
import { mutateBytes } from './bytes.js';

/** A tree that can hold what JSON.stringify cannot write: a name twice, a number such as 1e999, text that is no JSON. */
export type Node = { entries: [name: string, value: Node][] } | { items: Node[] } | { text: string };

export function toNode(value: unknown): Node {
  if (Array.isArray(value)) return { items: value.map(toNode) };
  if (typeof value !== 'object' || value === null) return { text: JSON.stringify(value) ?? 'null' };
  return { entries: Object.entries(value).map(([name, child]) => [name, toNode(child)]) };
}

export function writeNode(node: Node): string {
  if ('text' in node) return node.text;
  if ('items' in node) return `[${node.items.map(writeNode).join(',')}]`;
  return `{${node.entries.map(([name, value]) => `${JSON.stringify(name)}:${writeNode(value)}`).join(',')}}`;
}

const copy = (node: Node): Node => {
  if ('items' in node) return { items: node.items.map(copy) };
  if ('entries' in node) return { entries: node.entries.map(([name, value]) => [name, copy(value)]) };
  return { ...node };
};

const TEXTS = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '-1',
  '1',
  '0.5',
  '1e999',
  '-1e999',
  '1e-400',
  '9007199254740993',
  '18446744073709551616',
  '2147483648',
  '4294967296',
  '16777217',
  '""',
  '" "',
  '"\\u0000"',
  '"\\ud800"',
  '"__proto__"',
  '"constructor"',
  '"0"',
  '"../../etc/passwd"',
  '"<|endoftext|>"',
  '"NaN"',
  '"1"',
  '[]',
  '{}',
  '[[]]',
  '[null]',
  '[-1]',
  '[1,2,3]',
  '{"":0}',
  '{"__proto__":{"x":1}}',
  '{"toString":1,"length":-1}',
];
const NAMES = [
  '__proto__',
  'constructor',
  'toString',
  'length',
  '',
  '0',
  '-1',
  'hasOwnProperty',
  'then',
  'type',
  '\ud800',
];
const REGEXES = [
  '(a+)+$',
  '(.*)*x',
  '[',
  '(?<a',
  '\\p{Lu}+',
  '(?i)x',
  '\\G',
  '',
  '.',
  '(a|a)*b',
  '(\\w+\\s?)*$',
  '((?:x*)*)*y',
];

const nested = (random: Random): string => {
  const depth = random.chance(0.05) ? random.pick([5_000, 20_000, 100_000]) : random.count(600);
  const [open, close] = random.pick([
    ['[', ']'],
    ['{"a":', '}'],
    ['[{"":', '}]'],
  ] as const);
  return `${open.repeat(depth)}0${random.chance(0.9) ? close.repeat(depth) : ''}`;
};

/** Any value, as JSON text. */
function anything(random: Random): string {
  switch (random.below(12)) {
    case 0:
      return String(random.boundary(random.pick([8, 16, 32, 64])) * (random.chance(0.5) ? 1n : -1n));
    case 1:
      return String((random.next() / 2 ** 32) * 10 ** random.between(-10, 10));
    case 2:
      return random.chance(0.2) ? nested(random) : '[[[[]]]]';
    case 3:
      return JSON.stringify(random.pick(['x', '(', '\ud83d', '\u0301', 'ab ']).repeat(random.count(3000)));
    case 4:
      return `[${Array(random.count(300)).fill(random.pick(TEXTS)).join(',')}]`;
    case 5:
      return JSON.stringify(random.pick(REGEXES));
    default:
      return random.pick(TEXTS);
  }
}

type Holder = { node: Node; replace: (by: Node) => void };

/** A place in the tree, any with the same chance. */
function place(root: Node, random: Random, replaceRoot: (by: Node) => void): Holder {
  let chosen: Holder = { node: root, replace: replaceRoot };
  let seen = 1;
  const walk = (node: Node): void => {
    const children = 'items' in node ? node.items : 'entries' in node ? node.entries.map(([, child]) => child) : [];
    for (const [i, child] of children.entries()) {
      seen++;
      if (random.below(seen) === 0) {
        const replace = (by: Node): void => {
          if ('items' in node) node.items[i] = by;
          else if ('entries' in node) node.entries[i]![1] = by;
        };
        chosen = { node: child, replace };
      }
      walk(child);
    }
  };
  walk(root);
  return chosen;
}

function bendNumber(text: string, random: Random): string {
  const value = Number(text);
  const near = [value + 1, value - 1, -value, value * 2, value + 0.5, value * 1e6];
  return random.chance(0.6) ? String(random.pick(near)) : anything(random);
}

/** A mutated copy of a tree. */
export function mutateNode(seed: Node, random: Random, times = random.count(4)): Node {
  let root = copy(seed);
  for (let i = 0; i < times; i++) {
    const { node, replace } = place(root, random, (by) => {
      root = by;
    });
    if ('text' in node || random.chance(0.1)) {
      const number = 'text' in node && /^-?\d/.test(node.text);
      replace({ text: number ? bendNumber(node.text, random) : anything(random) });
      continue;
    }
    const list: unknown[] = 'items' in node ? node.items : node.entries;
    const at = random.below(list.length + 1);
    switch (random.below(5)) {
      case 0:
        list.splice(at, 1);
        break;
      case 1:
        if (list[at] !== undefined) list.splice(random.below(list.length + 1), 0, list[at]);
        break;
      case 2:
        if ('items' in node) node.items.splice(at, 0, { text: anything(random) });
        else node.entries.splice(at, 0, [random.pick(NAMES), { text: anything(random) }]);
        break;
      case 3:
        if ('entries' in node && node.entries[at])
          node.entries[at][0] = random.chance(0.5) ? random.pick(NAMES) : `${node.entries[at][0]}.`;
        else replace({ text: anything(random) });
        break;
      default:
        if ('entries' in node && node.entries[at]) node.entries[at][1] = { text: anything(random) };
        else if ('items' in node && node.items[at]) node.items[at] = { text: anything(random) };
    }
  }
  return root;
}

/** A mutated JSON text as bytes: now and then with a byte-order mark, behind other text, or broken as bytes. */
export function mutateJson(seed: Node, random: Random): Uint8Array {
  let text = writeNode(mutateNode(seed, random));
  if (random.chance(0.03)) text = `\ufeff${text}`;
  if (random.chance(0.03))
    text = random.pick([`${text},`, `${text}\n${text}`, `/* */${text}`, text.slice(0, -1), '', ' ']);
  const bytes = new TextEncoder().encode(text);
  return random.chance(0.1) ? mutateBytes(bytes, random, [], 1) : bytes;
}
