/**
 * Strict JSON: what JSON.parse accepts, less what it hides (names that occur twice in one object) and less what would end
 * the process that works with it (too deep, too many parts). A byte-order mark is skipped.
 */
import { DistilWhisperError, type ErrorCode, shown } from '../errors/index.js';
import { readTextFile, TextError } from './text.js';

export type JsonObject = { [key: string]: unknown };

/** True for a plain JSON object: not null and not an array. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A tokenizer.json nests ten deep. What walks a value by recursion fails near 5,000. */
const MAX_DEPTH = 100;
/** A tokenizer.json has 50,000 merges, a list each; a million objects take 60 MB. */
const MAX_PARTS = 1_000_000;

/** The value of a JSON text, checked as this module's head says. Throws TextError, which says what is wrong. */
export function parseJson(text: string): unknown {
  const json = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  const { depth, parts } = measure(json);
  if (parts > MAX_PARTS) throw new TextError(`has more than ${MAX_PARTS} lists and objects`);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ');
    throw new TextError(`is not valid JSON (${reason})`);
  }
  if (depth > MAX_DEPTH) throw new TextError(`nests its lists and objects deeper than ${MAX_DEPTH}`);
  const duplicate = findDuplicateKey(json);
  if (duplicate !== undefined) throw new TextError(`holds the name ${shown(duplicate)} twice in one object`);
  return value;
}

/** How deep brackets nest outside of strings, and how many open. The text need not be valid. */
function measure(text: string): { depth: number; parts: number } {
  let open = 0;
  let depth = 0;
  let parts = 0;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        parts++;
        open++;
        if (open > depth) depth = open;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open--;
        break;
      case 0x22:
        at = endOfString(text, at);
        break;
    }
  }
  return { depth, parts };
}

/**
 * The first name that occurs twice in one object of a JSON text, at any depth, compared after unescaping; undefined
 * where there is none. The text must already have passed JSON.parse: the scanner leans on its being valid.
 */
function findDuplicateKey(text: string): string | undefined {
  // One entry for each open bracket: the names seen so far in an object, or null in an array.
  const open: (Set<string> | null)[] = [];
  let nameNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
        open.push(new Set());
        nameNext = true;
        break;
      case 0x5b: // [
        open.push(null);
        nameNext = false;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        nameNext = false;
        break;
      case 0x2c: // ,
        nameNext = open[open.length - 1] !== null;
        break;
      case 0x22: {
        const end = endOfString(text, at);
        const names = open[open.length - 1];
        if (nameNext && names) {
          const raw = text.slice(at + 1, end);
          const name = raw.includes('\\') ? (JSON.parse(`"${raw}"`) as string) : raw;
          if (names.has(name)) return name;
          names.add(name);
          nameNext = false;
        }
        at = end;
        break;
      }
    }
  }
  return undefined;
}

/** The first number of a valid JSON text that is not written in digits alone, such as 0.0, 1e3 or -0; undefined without one. */
export function findFraction(text: string): string | undefined {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x22) {
      at = endOfString(text, at);
    } else if (code === 0x2d || (code >= 0x30 && code <= 0x39)) {
      const start = at;
      while (/[\d.eE+-]/.test(text.charAt(at + 1))) at++;
      const number = text.slice(start, at + 1);
      if (!/^\d+$/.test(number)) return number;
    }
  }
  return undefined;
}

/** The position of the quote that closes the string opened at `start`, or the text's end. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text.charCodeAt(at) !== 0x22) at += text.charCodeAt(at) === 0x5c ? 2 : 1;
  return at;
}

/**
 * Reads a file that must hold one JSON object. Throws ERR_FILE_NOT_FOUND or ERR_FILE_READ where it cannot be read and
 * `code` where its content is no object, with the file in the sentence.
 */
export async function readJsonObject(path: string, code: ErrorCode): Promise<JsonObject> {
  const text = await readTextFile(path, code);
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    throw new DistilWhisperError(code, `${path} ${error.message}`, { cause: error });
  }
  if (!isJsonObject(value)) {
    throw new DistilWhisperError(code, `${path} must hold a JSON object, it holds ${shown(value)}`);
  }
  return value;
}
