import { DistilWhisperError, editDistance } from '../errors/index.js';

/** A language of Whisper: its token is `<|code|>`, its experts carry the lower-case English name. */
export interface Language {
  readonly code: string;
  readonly name: string;
}

const table =
  'en english,zh chinese,de german,es spanish,ru russian,ko korean,fr french,ja japanese,pt portuguese,tr turkish,' +
  'pl polish,ca catalan,nl dutch,ar arabic,sv swedish,it italian,id indonesian,hi hindi,fi finnish,vi vietnamese,' +
  'he hebrew,uk ukrainian,el greek,ms malay,cs czech,ro romanian,da danish,hu hungarian,ta tamil,no norwegian,' +
  'th thai,ur urdu,hr croatian,bg bulgarian,lt lithuanian,la latin,mi maori,ml malayalam,cy welsh,sk slovak,' +
  'te telugu,fa persian,lv latvian,bn bengali,sr serbian,az azerbaijani,sl slovenian,kn kannada,et estonian,' +
  'mk macedonian,br breton,eu basque,is icelandic,hy armenian,ne nepali,mn mongolian,bs bosnian,kk kazakh,' +
  'sq albanian,sw swahili,gl galician,mr marathi,pa punjabi,si sinhala,km khmer,sn shona,yo yoruba,so somali,' +
  'af afrikaans,oc occitan,ka georgian,be belarusian,tg tajik,sd sindhi,gu gujarati,am amharic,yi yiddish,lo lao,' +
  'uz uzbek,fo faroese,ht haitian creole,ps pashto,tk turkmen,nn nynorsk,mt maltese,sa sanskrit,lb luxembourgish,' +
  'my myanmar,bo tibetan,tl tagalog,mg malagasy,as assamese,tt tatar,haw hawaiian,ln lingala,ha hausa,ba bashkir,' +
  'jw javanese,su sundanese,yue cantonese';

/**
 * Whisper's 100 languages in the order of their tokens: `<|startoftranscript|>` + 1 + index.
 * Models up to large-v2 know the first 99; `yue` came with large-v3.
 */
export const LANGUAGES: readonly Language[] = table.split(',').map((entry) => {
  const space = entry.indexOf(' ');
  return Object.freeze({ code: entry.slice(0, space), name: entry.slice(space + 1) });
});

/** Other names of some of its languages: Whisper's own aliases, and what data sets call them. */
const aliases: Record<string, string> = {
  bokmal: 'no',
  bokmål: 'no',
  burmese: 'my',
  castilian: 'es',
  farsi: 'fa',
  filipino: 'tl',
  flemish: 'nl',
  haitian: 'ht',
  letzeburgesch: 'lb',
  mandarin: 'zh',
  'mandarin chinese': 'zh',
  moldavian: 'ro',
  moldovan: 'ro',
  'norwegian bokmal': 'no',
  'norwegian bokmål': 'no',
  'norwegian nynorsk': 'nn',
  panjabi: 'pa',
  pushto: 'ps',
  sinhalese: 'si',
  valencian: 'ca',
};

/**
 * Codes that mean one of the languages: withdrawn and narrower ones of two letters, and those of ISO 639-2 and 639-3, the
 * individual language of a macrolanguage where it is what is meant by it (cmn, arb, swh).
 */
const codes =
  'he iw,jw jv,no nb,id in,yi ji,ro mo,en eng,zh zho chi cmn,de deu ger,es spa,ru rus,ko kor,fr fra fre,ja jpn,pt por,tr tur,' +
  'pl pol,ca cat,nl nld dut,ar ara arb,sv swe,it ita,id ind,hi hin,fi fin,vi vie,he heb,uk ukr,el ell gre,ms msa may zsm,' +
  'cs ces cze,ro ron rum mol,da dan,hu hun,ta tam,no nor nob,th tha,ur urd,hr hrv,bg bul,lt lit,la lat,mi mri mao,ml mal,' +
  'cy cym wel,sk slk slo,te tel,fa fas per pes,lv lav lvs,bn ben,sr srp,az aze azj,sl slv,kn kan,et est ekk,mk mkd mac,' +
  'br bre,eu eus baq,is isl ice,hy hye arm,ne nep npi,mn mon khk,bs bos,kk kaz,sq sqi alb,sw swa swh,gl glg,mr mar,pa pan,' +
  'si sin,km khm,sn sna,yo yor,so som,af afr,oc oci,ka kat geo,be bel,tg tgk,sd snd,gu guj,am amh,yi yid,lo lao,uz uzb uzn,' +
  'fo fao,ht hat,ps pus,tk tuk,nn nno,mt mlt,sa san,lb ltz,my mya bur,bo bod tib,tl tgl fil,mg mlg plt,as asm,tt tat,' +
  'haw haw,ln lin,ha hau,ba bak,jw jav,su sun,yue yue';

const byCode = new Map(LANGUAGES.map((language) => [language.code, language]));
const pair = (text: string, code: string): [string, Language] => [text, byCode.get(code) as Language];
/** What is spelt out, and compared with what was meant: names, aliases and Whisper's codes. */
const byName = new Map<string, Language>([
  ...LANGUAGES.map(({ name, code }) => pair(name, code)),
  ...Object.entries(aliases).map(([alias, code]) => pair(alias, code)),
  ...byCode,
]);
const byText = new Map<string, Language>([
  ...codes.split(',').flatMap((entry) => {
    const [code, ...others] = entry.split(' ');
    return others.map((other) => pair(other, code!));
  }),
  ...byName,
]);

/** What may stand behind the language in a tag: three letters that narrow it, a script, a region, variants. */
const EXTENDED = /^[a-z]{3}$/;
const SUBTAG = /^([a-z]{4}|[a-z]{2}|\d{3}|[a-z\d]{5,8}|\d[a-z\d]{3})$/;

/** The language of a tag such as zh-CN, sr-Latn-RS, cmn_hans_cn, pt_BR.UTF-8 or <|ca|>, in lower case. */
function ofTag(text: string): Language | undefined {
  const [language, ...rest] = text
    .replace(/^<\|(.*)\|>$/, '$1')
    .replace(/[.@].*$/, '')
    .split(/[-_]/);
  // zh-yue is Cantonese, not Chinese: what narrows the language is the language.
  const narrower = rest[0] !== undefined && EXTENDED.test(rest[0]) ? rest.shift() : undefined;
  const found = byText.get(narrower ?? language!);
  const isCode = /^[a-z]{2,3}$/.test(language!);
  return isCode && rest.every((subtag) => SUBTAG.test(subtag)) ? found : undefined;
}

/** Longer than any name or tag, so that nothing long is taken apart. */
const MAX_LENGTH = 60;

/**
 * The language that a code (`ca`), a name (`Catalan`), an alias (`valencian`), a code of ISO 639 (`cat`) or a tag (`ca_es`,
 * `zh-Hant-TW`) means; case and outer spaces do not count.
 * @throws ERR_LANGUAGE for anything else, with the nearest names.
 */
export function resolveLanguage(text: string): Language {
  if (typeof text !== 'string') {
    throw new DistilWhisperError(
      'ERR_LANGUAGE',
      `A language must be a code or a name such as 'ca', got ${typeof text}.`,
    );
  }
  const trimmed = text.trim();
  const key = trimmed.length > MAX_LENGTH ? '' : trimmed.toLowerCase().normalize('NFC');
  const found = byText.get(key) ?? byText.get(key.replace(/[-_]+/g, ' ')) ?? ofTag(key);
  if (found) return found;
  const near = nearest(key);
  const hint = near.length ? ` Did you mean ${near.join(' or ')}?` : '';
  throw new DistilWhisperError(
    'ERR_LANGUAGE',
    `Unknown language '${text.slice(0, 60)}': expected a code or a name of Whisper's ${LANGUAGES.length} languages, such as 'ca' or 'catalan'.${hint}`,
  );
}

/** Up to three languages whose name, alias or code is close to the text: a shared beginning or few edits. */
function nearest(key: string): string[] {
  if (key.length < 2 || key.length > 40) return [];
  const scored = new Map<Language, number>();
  for (const [name, language] of byName) {
    let score = editDistance([...key], [...name]) ?? Infinity;
    if (name.length > 3 && key.length > 2 && (name.startsWith(key) || key.startsWith(name))) score = Math.min(score, 1);
    // A code is so short that one edit reaches a tenth of all: only those with the same first letter are worth naming.
    if (name.length <= 3 && name[0] !== key[0]) continue;
    const limit = name.length <= 3 ? 1 : Math.max(2, Math.floor(Math.max(name.length, key.length) / 3));
    if (score <= limit && score < (scored.get(language) ?? Infinity)) scored.set(language, score);
  }
  return [...scored]
    .sort((a, b) => a[1] - b[1])
    .slice(0, 3)
    .map(([language]) => `'${language.name}' (${language.code})`);
}
