/**
 * Selects short sentences from Common Voice's text collections (CC0) into scripts/corpus/sentences/, so that the corpus
 * can be made again from this repository alone:
 *   npx tsx scripts/corpus/sentences.ts FOLDER     FOLDER holds ca.txt, cs.txt, …, one sentence a line
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Random } from './random.js';
import { codePoints, comparisonKey, LANGUAGES, type Language, LONGEST_TEXT, writtenForm } from './text.js';

const HERE = fileURLToPath(new URL('./sentences/', import.meta.url));
const MOST = 6500;

const LETTERS: Record<Exclude<Language, 'en'>, RegExp> = {
  ca: /^[a-zàèéíïòóúüç·' ,.!?;:’-]+$/iu,
  cs: /^[a-záčďéěíňóřšťúůýž ,.!?;:-]+$/iu,
  hu: /^[a-záéíóöőúüű ,.!?;:-]+$/iu,
  pl: /^[a-ząćęłńóśźż ,.!?;:-]+$/iu,
  th: /^[\u0e01-\u0e3a\u0e40-\u0e4c ]+$/u,
  uk: /^[абвгґдеєжзиіїйклмнопрстуфхцчшщьюя'’ ,.!?;:-]+$/iu,
};

// Coarse words and names of hatred, by stem, at the start of a word (anywhere in Thai, which writes words together).
const UNWANTED: Record<Exclude<Language, 'en'>, string> = {
  ca: 'merd|put[aeo]|coll?on|cony|fot[erui]|polla|cabr[oó]|cul\\b|culs|sex|viol|nazi|hitler|cag[aou]|pix|teta|tetes|follar|suïcid|mama|negr|moro',
  cs: 'kurv|píč|pič|prdel|hovn|srá|sra|mrd|jeb|šuk|sex|nazi|nacis|hitler|děvk|kozy|zmrd|čurá|buzer|cigán|znásil|sebevra|negr|neg[eř]',
  hu: 'fasz|basz|bazm|kurv|pics|szar|segg|gec[ie]|pina|szex|náci|hitler|cigány|buzi|erősza|öngyilk|néger|zsidó|köcsög|fos',
  pl: 'chuj|kurw|pierd|jeb|dup|cip|gówn|sra|kutas|seks|naz|hitler|dziwk|zajeb|wyjeb|pizd|szma|gwał|samobój|murzy|żyd|pedał|cyc|suk[aię]',
  th: 'ควย|เหี้ย|สัส|เย็ด|หี|มึง|กู|แม่ง|ตอแหล|อีดอก|ระยำ|นม|เซ็กซ์|ข่มขืน|ฆ่าตัว|นาซี|ฮิตเลอร์',
  uk: 'хуй|хує|хуї|бля|пизд|їба|єба|лайн|срак|сран|срат|гівн|секс|нацис|гітлер|курв|жид|циган|ґвалт|зґвалт|самогуб|сук|дуп',
};

// A quarter of the Catalan collection says no more than that we go to some town.
const TOWNS = /^Anem (?:a|al|als) /u;

/** The sentences of `lines` fit for reading aloud in the language, each once, in a fixed random order. */
export function selectSentences(language: Exclude<Language, 'en'>, lines: readonly string[]): string[] {
  const unwanted = new RegExp(language === 'th' ? UNWANTED[language] : `(?<![\\p{L}])(?:${UNWANTED[language]})`, 'iu');
  const seen = new Set<string>();
  const kept: string[] = [];
  for (const line of lines) {
    const sentence = line
      .normalize('NFC')
      .replace(/^[\s"„”“«»–—-]+|[\s"„”“«»–—-]+$/gu, '')
      .replaceAll('’', "'");
    const written = writtenForm(sentence);
    const length = codePoints(written);
    const words = written.split(' ').length;
    if (length < 8 || length > LONGEST_TEXT || (language !== 'th' && (words < 2 || words > 11))) continue;
    if (!LETTERS[language].test(sentence) || unwanted.test(sentence) || TOWNS.test(sentence)) continue;
    if (/\p{Lu}[\p{Lu}.]/u.test(sentence) || /\p{Ll}\p{Lu}/u.test(sentence)) continue;
    const key = comparisonKey(sentence);
    if (seen.has(key)) continue;
    seen.add(key);
    kept.push(sentence);
  }
  return new Random(`sentences ${language}`).shuffle(kept).slice(0, MOST);
}

/** The sentences selected for a language; none for English, which is made of templates only. */
export function readSentences(language: Language): string[] {
  const file = join(HERE, `${language}.txt`);
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : [];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = process.argv[2];
  if (folder === undefined) throw new Error('usage: npx tsx scripts/corpus/sentences.ts FOLDER');
  mkdirSync(HERE, { recursive: true });
  for (const language of LANGUAGES) {
    if (language === 'en') continue;
    const selected = selectSentences(language, readFileSync(join(folder, `${language}.txt`), 'utf8').split('\n'));
    writeFileSync(join(HERE, `${language}.txt`), `${selected.join('\n')}\n`);
    console.log(`${language}: ${selected.length} sentences`);
  }
}
