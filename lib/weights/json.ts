/** Strict JSON: what JSON.parse accepts, less what it hides (names that occur twice in one object, broken UTF-8). */
import { readFile } from 'node:fs/promises';
import { DistilWhisperError, type ErrorCode, fileReadError } from '../errors/index.js';
import { retried } from '../files/index.js';

export type JsonObject = { [key: string]: unknown };

/** True for a plain JSON object: not null and not an array. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Something is wrong with the text itself; the caller says in which file. */
export class JsonTextError extends Error {}

/** Decodes UTF-8 strictly (a byte-order mark is kept, so that JSON refuses it) and parses it. Throws JsonTextError. */
export function parseJsonBytes(bytes: Uint8Array): { text: string; value: unknown } {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new JsonTextError('is not valid UTF-8');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new JsonTextError(`is not valid JSON (${error instanceof Error ? error.message : String(error)})`);
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined)
    throw new JsonTextError(`holds the name ${JSON.stringify(duplicate)} twice in one object`);
  return { text, value };
}

/**
 * The first name that occurs twice in one object of a JSON text, at any depth, compared after unescaping; undefined
 * where there is none. The text must already have passed JSON.parse: the scanner leans on its being valid.
 */
export function findDuplicateKey(text: string): string | undefined {
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
          const name = JSON.parse(text.slice(at, end + 1)) as string;
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

/** The position of the quote that closes the string opened at `start`. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text.charCodeAt(at) !== 0x22) at += text.charCodeAt(at) === 0x5c ? 2 : 1;
  return at;
}

/**
 * Reads a file that must hold one JSON object. Throws ERR_FILE_NOT_FOUND or ERR_FILE_READ where it cannot be read and
 * `code` where its content is no object, with the file in the sentence.
 */
export async function readJsonObject(path: string, code: ErrorCode): Promise<JsonObject> {
  let bytes: Uint8Array;
  try {
    bytes = await retried(() => readFile(path));
  } catch (error) {
    throw fileReadError(error, path);
  }
  let value: unknown;
  try {
    ({ value } = parseJsonBytes(bytes));
  } catch (error) {
    if (!(error instanceof JsonTextError)) throw error;
    throw new DistilWhisperError(code, `${path} ${error.message}`, { cause: error });
  }
  if (!isJsonObject(value)) {
    throw new DistilWhisperError(
      code,
      `${path} must hold a JSON object, it holds ${JSON.stringify(value).slice(0, 60)}`,
    );
  }
  return value;
}
