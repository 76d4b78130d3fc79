/** Spelled-out numbers in the seven languages: n2words, except Catalan, which it lacks. */
import * as cs from 'n2words/cs-CZ';
import * as en from 'n2words/en-GB';
import * as hu from 'n2words/hu-HU';
import * as pl from 'n2words/pl-PL';
import * as th from 'n2words/th-TH';
import * as uk from 'n2words/uk-UA';
import type { Language } from './text.js';

const CA_UNITS =
  'zero u dos tres quatre cinc sis set vuit nou deu onze dotze tretze catorze quinze setze disset divuit dinou'.split(
    ' ',
  );
const CA_TENS = ['', '', 'vint', 'trenta', 'quaranta', 'cinquanta', 'seixanta', 'setanta', 'vuitanta', 'noranta'];

/** Catalan below a million; `final` says that nothing follows, where "u" stands instead of "un". */
function catalan(n: number, final = true): string {
  if (n < 20) return n === 1 && !final ? 'un' : (CA_UNITS[n] as string);
  if (n < 100) {
    const tens = CA_TENS[Math.floor(n / 10)] as string;
    if (n % 10 === 0) return tens;
    return `${tens}${n < 30 ? '-i-' : '-'}${catalan(n % 10, final)}`;
  }
  if (n < 1000) {
    const hundreds = Math.floor(n / 100);
    const head = hundreds === 1 ? 'cent' : `${CA_UNITS[hundreds]}-cents`;
    return n % 100 === 0 ? head : `${head} ${catalan(n % 100, final)}`;
  }
  const thousands = Math.floor(n / 1000);
  const head = thousands === 1 ? 'mil' : `${catalan(thousands, false)} mil`;
  return n % 1000 === 0 ? head : `${head} ${catalan(n % 1000, final)}`;
}

// n2words writes the Ukrainian і as a Latin i.
const cyrillic = (text: string): string => text.replaceAll('i', 'і');

/** The cardinal number `n` (0 to 999,999) in words, punctuated as written. */
export function cardinal(language: Language, n: number): string {
  switch (language) {
    case 'ca':
      return catalan(n);
    case 'cs':
      return cs.toCardinal(n);
    case 'en':
      return en.toCardinal(n);
    case 'hu':
      return hu.toCardinal(n);
    case 'pl':
      return pl.toCardinal(n);
    case 'th':
      return th.toCardinal(n);
    case 'uk':
      return cyrillic(uk.toCardinal(n));
  }
}

const CS_TENS = ['', '', 'dvacátého', 'třicátého'];

/** The ordinal that a date (a day of the month) or a clock (an hour) needs in a language whose dates use ordinals. */
export function ordinal(language: Language, n: number, form: 'day' | 'hour'): string {
  switch (language) {
    case 'cs': {
      const genitive = (word: string): string => word.replace(/ý$/u, 'ého').replace(/í$/u, 'ího');
      if (n <= 20) return genitive(cs.toOrdinal(n));
      const tens = CS_TENS[Math.floor(n / 10)] as string;
      return n % 10 === 0 ? tens : `${tens} ${genitive(cs.toOrdinal(n % 10))}`;
    }
    case 'en':
      return en.toOrdinal(n);
    case 'hu': {
      if (n === 1) return 'elseje';
      // n2words leaves the stems of compound ordinals unshortened.
      const word = hu
        .toOrdinal(n)
        .replace('kettődik', 'kettedik')
        .replace('háromadik', 'harmadik')
        .replace('négyedik', 'negyedik')
        .replace('hétedik', 'hetedik');
      return word + (/[ao]dik$/u.test(word) ? 'a' : 'e');
    }
    case 'pl':
      return pl
        .toOrdinal(n)
        .split(' ')
        .map((word) =>
          form === 'day'
            ? word.replace(/y$/u, 'ego').replace(/i$/u, 'iego')
            : word.replace(/gi$/u, 'ga').replace(/y$/u, 'a').replace(/i$/u, 'ia'),
        )
        .join(' ');
    case 'uk':
      return cyrillic(uk.toOrdinal(n))
        .replace(/ий$/u, form === 'day' ? 'е' : 'а')
        .replace(/ій$/u, form === 'day' ? 'є' : 'я');
    default:
      return cardinal(language, n);
  }
}
