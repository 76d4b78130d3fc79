/** Sentences made from numbers, dates, times and word lists. Each returns the spoken form, with its punctuation. */
import { cardinal, ordinal } from './numbers.js';
import type { Random } from './random.js';
import type { Language } from './text.js';
import { WORDS } from './words.js';

export type Kind = 'number' | 'date' | 'time' | 'template' | 'sentence' | 'price' | 'digits' | 'count' | 'words';

const DAYS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

function numberPhrase(language: Language, random: Random): string {
  const size = random.next();
  if (size < 0.08) return cardinal(language, random.whole(0, 99));
  if (size < 0.5) return cardinal(language, random.whole(100, 9999));
  return cardinal(language, random.whole(10_000, 999_999));
}

function englishYear(year: number): string {
  if (year >= 2000 && year < 2010) return cardinal('en', year);
  const rest = year % 100;
  const tail = rest === 0 ? 'hundred' : rest < 10 ? `oh ${cardinal('en', rest)}` : cardinal('en', rest);
  return `${cardinal('en', Math.floor(year / 100))} ${tail}`;
}

function datePhrase(language: Language, random: Random): string {
  const words = WORDS[language];
  const month = random.whole(0, 11);
  const day = random.whole(1, DAYS[month] as number);
  const name = words.months[month] as string;
  const weekday = random.pick(words.weekdays);
  const year = random.whole(1900, 2030);
  const form = random.pick(['plain', 'weekday', 'year', 'year'] as const);
  const number = (n: number): string => cardinal(language, n);
  switch (language) {
    case 'ca': {
      const date = `${day === 1 ? "l'u" : day === 11 ? "l'onze" : `el ${number(day)}`} ${name}`;
      if (form === 'year') return `${date} de ${number(year)}`;
      return form === 'weekday' ? `${weekday}, ${date}` : date;
    }
    case 'en': {
      const date = `the ${ordinal('en', day, 'day')} ${name}`;
      if (form === 'year') return `${date}, ${englishYear(year)}`;
      return form === 'weekday' ? `${weekday}, ${date}` : date;
    }
    case 'hu': {
      const date = `${name} ${ordinal('hu', day, 'day')}`;
      if (form === 'year') return `${number(year)} ${date}`;
      return form === 'weekday' ? `${weekday}, ${date}` : date;
    }
    case 'th': {
      const date = `วันที่${number(day)}${name}`;
      if (form === 'year') return `${date}ปี${number(year)}`;
      return form === 'weekday' ? `${weekday}ที่${number(day)}${name}` : date;
    }
    default: {
      const date = `${ordinal(language, day, 'day')} ${name}`;
      const before = { cs: '', pl: 'rok ', uk: 'рік ' }[language];
      if (form === 'year') return `${date}, ${before}${number(year)}`;
      return form === 'weekday' ? `${weekday}, ${date}` : date;
    }
  }
}

/** Numbers whose noun stands in the genitive plural in the Slavic languages and agrees with no gender elsewhere. */
function many(random: Random, low: number, high: number): number {
  for (;;) {
    const n = random.whole(low, high);
    if (n % 10 === 0 || n % 10 >= 5 || (n % 100 >= 11 && n % 100 <= 14)) return n;
  }
}

function timePhrase(language: Language, random: Random): string {
  const hour = random.whole(1, 12);
  const minute = many(random, 5, 59);
  const bare = random.chance(0.05);
  const frame = random.whole(0, 3);
  const h = cardinal(language, hour);
  const m = cardinal(language, minute);
  switch (language) {
    case 'ca': {
      const clock = hour === 1 ? 'la una' : hour === 2 ? 'les dues' : `les ${h}`;
      const time = bare ? `${clock} en punt` : `${clock} i ${m}`;
      const are = hour === 1 ? 'és' : 'són';
      return [`${are} ${time}`, `ara ${are} ${time}`, `a ${time}`, `el tren surt a ${time}`][frame] as string;
    }
    case 'cs': {
      const noun = hour === 1 ? 'hodina' : hour < 5 ? 'hodiny' : 'hodin';
      const count = hour === 2 ? 'dvě' : h;
      const time = bare ? `${count} ${noun}` : `${count} ${noun} ${m} minut`;
      const is = hour > 1 && hour < 5 ? 'jsou' : 'je';
      return [`${is} ${time}`, `teď ${is} ${time}`, `právě ${is} ${time}`, `vlak jede, ${is} ${time}`][frame] as string;
    }
    case 'en': {
      const time = bare ? `${h} o'clock` : minute % 2 === 0 ? `${h} ${m}` : `${m} minutes past ${h}`;
      return [`it is ${time}`, `now it is ${time}`, `at ${time}`, `the train leaves at ${time}`][frame] as string;
    }
    case 'hu': {
      const count = hour === 2 ? 'két' : hour === 12 ? 'tizenkét' : h;
      const time = bare ? `pontosan ${count} óra` : `${count} óra ${m} perc`;
      return [time, `most ${time} van`, `az idő ${time}`, `a vonat indul, ${time}`][frame] as string;
    }
    case 'pl': {
      const time = `${ordinal('pl', hour, 'hour')}${bare ? '' : ` ${m}`}`;
      return [`jest godzina ${time}`, `teraz jest ${time}`, `godzina ${time}`, `pociąg odjeżdża, jest ${time}`][
        frame
      ] as string;
    }
    case 'th': {
      const time = bare ? `${h}นาฬิกา` : `${h}นาฬิกา${m}นาที`;
      return [`เวลา${time}`, `ตอนนี้${time}`, `ขณะนี้เวลา${time}`, `รถไฟออก${time}`][frame] as string;
    }
    case 'uk': {
      const time = `${ordinal('uk', hour, 'hour')} година${bare ? '' : ` ${m} хвилин`}`;
      return [time, `зараз ${time}`, `вже ${time}`, `потяг їде, ${time}`][frame] as string;
    }
  }
}

function templatePhrase(language: Language, random: Random): string {
  const words = WORDS[language];
  const subject = random.pick(words.subjects);
  const verb = random.pick(words.verbs);
  const object = random.pick(words.objects);
  const adverb = random.chance(0.75) ? random.pick(words.adverbs) : '';
  if (language === 'th') return subject + verb + object + adverb;
  return [subject, verb, object, adverb].filter((part) => part !== '').join(' ');
}

function pricePhrase(language: Language, random: Random): string {
  return WORDS[language].price
    .replace('{n}', cardinal(language, many(random, 5, 99)))
    .replace('{m}', cardinal(language, many(random, 5, 99)));
}

function digitsPhrase(language: Language, random: Random): string {
  const digits = Array.from({ length: random.whole(5, 6) }, () => cardinal(language, random.whole(0, 9)));
  const opening = random.pick(WORDS[language].telephone);
  return language === 'th' ? opening + digits.join('') : `${opening} ${digits.join(' ')}`;
}

function countPhrase(language: Language, random: Random): string {
  const opening = random.pick(WORDS[language].counting);
  const noun = random.pick(WORDS[language].counted);
  const n = cardinal(language, many(random, 5, 99));
  if (language !== 'th') return `${opening} ${n} ${noun}`;
  const [thing, classifier] = noun.split('/');
  return `${opening}${thing}${n}${classifier}`;
}

/** A phrase of a kind that is made, not read. */
export function phrase(kind: Exclude<Kind, 'sentence' | 'words'>, language: Language, random: Random): string {
  switch (kind) {
    case 'number':
      return numberPhrase(language, random);
    case 'date':
      return datePhrase(language, random);
    case 'time':
      return timePhrase(language, random);
    case 'template':
      return templatePhrase(language, random);
    case 'price':
      return pricePhrase(language, random);
    case 'digits':
      return digitsPhrase(language, random);
    case 'count':
      return countPhrase(language, random);
  }
}
