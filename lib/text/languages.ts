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

/** Other names that Whisper accepts for some of its languages. */
const aliases: Record<string, string> = {
  burmese: 'my',
  castilian: 'es',
  flemish: 'nl',
  haitian: 'ht',
  letzeburgesch: 'lb',
  mandarin: 'zh',
  moldavian: 'ro',
  moldovan: 'ro',
  panjabi: 'pa',
  pushto: 'ps',
  sinhalese: 'si',
  valencian: 'ca',
};

const byCode = new Map(LANGUAGES.map((language) => [language.code, language]));
const byText = new Map<string, Language>([
  ...LANGUAGES.map((language): [string, Language] => [language.name, language]),
  ...Object.entries(aliases).map(([alias, code]): [string, Language] => [alias, byCode.get(code) as Language]),
  ...byCode,
]);

/**
 * The language that a code (`ca`), a name (`Catalan`) or an alias (`valencian`) means; case and outer spaces do not count.
 * @throws ERR_LANGUAGE for anything else, with the nearest names.
 */
export function resolveLanguage(text: string): Language {
  if (typeof text !== 'string') {
    throw new DistilWhisperError(
      'ERR_LANGUAGE',
      `A language must be a code or a name such as 'ca', got ${typeof text}.`,
    );
  }
  const key = text.trim().toLowerCase();
  const found = byText.get(key);
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
  for (const [name, language] of byText) {
    let score = editDistance([...key], [...name]);
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
