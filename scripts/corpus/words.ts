/** The everyday words and sentence frames of the corpus, inflected by hand for the places they fill. */
import type { Language } from './text.js';

export interface Words {
  /** Months as a date needs them. */
  months: string[];
  weekdays: string[];
  subjects: string[];
  verbs: string[];
  objects: string[];
  adverbs: string[];
  /** Openings of the counting sentence and the nouns it counts; Thai nouns carry their classifier after a slash. */
  counting: string[];
  counted: string[];
  /** A price, with {n} and {m}. */
  price: string;
  /** What comes before a telephone number. */
  telephone: string[];
}

const list = (text: string): string[] => text.split(',').map((item) => item.trim());

export const WORDS: Record<Language, Words> = {
  ca: {
    months: list(
      "de gener, de febrer, de març, d'abril, de maig, de juny, de juliol, d'agost, de setembre, d'octubre, de novembre, de desembre",
    ),
    weekdays: list('dilluns, dimarts, dimecres, dijous, divendres, dissabte, diumenge'),
    subjects: list(
      'la meva germana, el meu pare, la mestra, el veí, la nena, en Joan, la Maria, el metge, la meva àvia, el noi, la cuinera, el pagès',
    ),
    verbs: list('compra, porta, busca, troba, vol, prepara, ven, neteja, guarda, mira'),
    objects: list(
      'el pa, la llet, una poma, el llibre, les claus, un cafè, la taula, el formatge, una cadira, el peix, les flors, la sopa, un barret, el diari',
    ),
    adverbs: list(
      "cada dia, avui, al matí, a casa, al mercat, a la cuina, a la nit, els dilluns, a l'estiu, amb calma",
    ),
    counting: list('tenim, calen, he vist, compreu'),
    counted: list('cadires, ampolles, cavalls, arbres, gats, barques, muntanyes, estrelles'),
    price: 'costa {n} euros i {m} cèntims',
    telephone: list('truqueu al, el número és, el codi és'),
  },
  cs: {
    months: list('ledna, února, března, dubna, května, června, července, srpna, září, října, listopadu, prosince'),
    weekdays: list('pondělí, úterý, středa, čtvrtek, pátek, sobota, neděle'),
    subjects: list(
      'moje sestra, můj otec, učitelka, soused, malá dívka, Jan, Marie, lékař, moje babička, chlapec, kuchařka, sedlák',
    ),
    verbs: list('kupuje, nese, hledá, najde, chce, připravuje, prodává, čistí, schovává, vidí'),
    objects: list(
      'chléb, mléko, jablko, knihu, klíče, kávu, stůl, sýr, židli, rybu, květiny, polévku, klobouk, noviny',
    ),
    adverbs: list('každý den, dnes, ráno, doma, na trhu, v kuchyni, večer, v pondělí, v létě, pomalu'),
    counting: list('máme, potřebujeme, vidím, koupili'),
    counted: list('židlí, lahví, koní, stromů, koček, lodí, hor, hvězd'),
    price: 'stojí to {n} eur a {m} centů',
    telephone: list('volejte, číslo je, kód je'),
  },
  en: {
    months: list(
      'of January, of February, of March, of April, of May, of June, of July, of August, of September, of October, of November, of December',
    ),
    weekdays: list('Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday'),
    subjects: list(
      'my sister, my father, the teacher, the neighbour, the little girl, John, Mary, the doctor, my grandmother, the boy, the cook, the farmer',
    ),
    verbs: list('buys, carries, looks for, finds, wants, prepares, sells, cleans, keeps, watches'),
    objects: list(
      'the bread, the milk, an apple, the book, the keys, a coffee, the table, the cheese, a chair, the fish, the flowers, the soup, a hat, the newspaper',
    ),
    adverbs: list(
      'every day, today, in the morning, at home, at the market, in the kitchen, at night, on Monday, in summer, slowly',
    ),
    counting: list('we have, I can see, they bought, there are'),
    counted: list('chairs, bottles, horses, trees, cats, boats, mountains, stars'),
    price: 'it costs {n} pounds and {m} pence',
    telephone: list('please call, the number is, the code is'),
  },
  hu: {
    months: list(
      'január, február, március, április, május, június, július, augusztus, szeptember, október, november, december',
    ),
    weekdays: list('hétfő, kedd, szerda, csütörtök, péntek, szombat, vasárnap'),
    subjects: list(
      'a nővérem, az apám, a tanárnő, a szomszéd, a kislány, János, Mária, az orvos, a nagymamám, a fiú, a szakács, a paraszt',
    ),
    verbs: list('megveszi, hozza, keresi, megtalálja, kéri, elkészíti, eladja, megtisztítja, elteszi, nézi'),
    objects: list(
      'a kenyeret, a tejet, az almát, a könyvet, a kulcsokat, a kávét, az asztalt, a sajtot, a széket, a halat, a virágokat, a levest, a kalapot, az újságot',
    ),
    adverbs: list('minden nap, ma, reggel, otthon, a piacon, a konyhában, este, hétfőn, nyáron, lassan'),
    counting: list('itt van, kell, hiányzik, maradt'),
    counted: list('szék, üveg, ló, fa, macska, hajó, hegy, csillag'),
    price: '{n} euró és {m} cent az ára',
    telephone: list('hívja ezt, a szám, a kód'),
  },
  pl: {
    months: list(
      'stycznia, lutego, marca, kwietnia, maja, czerwca, lipca, sierpnia, września, października, listopada, grudnia',
    ),
    weekdays: list('poniedziałek, wtorek, środa, czwartek, piątek, sobota, niedziela'),
    subjects: list(
      'moja siostra, mój ojciec, nauczycielka, sąsiad, dziewczynka, Jan, Maria, lekarz, moja babcia, chłopiec, kucharka, rolnik',
    ),
    verbs: list('kupuje, niesie, ma, znajduje, lubi, przygotowuje, sprzedaje, czyści, chowa, widzi'),
    objects: list(
      'chleb, mleko, jabłko, książkę, klucze, kawę, stół, ser, krzesło, rybę, kwiaty, zupę, kapelusz, gazetę',
    ),
    adverbs: list('codziennie, dzisiaj, rano, w domu, na targu, w kuchni, wieczorem, w poniedziałek, latem, powoli'),
    counting: list('mamy, widzę, kupili, zostało'),
    counted: list('krzeseł, butelek, koni, drzew, kotów, łodzi, gór, gwiazd'),
    price: 'kosztuje {n} euro i {m} centów',
    telephone: list('zadzwoń pod, numer to, kod to'),
  },
  th: {
    months: list('มกราคม, กุมภาพันธ์, มีนาคม, เมษายน, พฤษภาคม, มิถุนายน, กรกฎาคม, สิงหาคม, กันยายน, ตุลาคม, พฤศจิกายน, ธันวาคม'),
    weekdays: list('วันจันทร์, วันอังคาร, วันพุธ, วันพฤหัสบดี, วันศุกร์, วันเสาร์, วันอาทิตย์'),
    subjects: list('พี่สาวของฉัน, พ่อของฉัน, ครู, เพื่อนบ้าน, เด็กหญิง, สมชาย, มาลี, หมอ, คุณยาย, เด็กชาย, แม่ครัว, ชาวนา'),
    verbs: list('ซื้อ, ถือ, หา, เจอ, อยากได้, เตรียม, ขาย, ล้าง, เก็บ, ดู'),
    objects: list('ขนมปัง, นม, แอปเปิล, หนังสือ, กุญแจ, กาแฟ, โต๊ะ, ชีส, เก้าอี้, ปลา, ดอกไม้, ซุป, หมวก, หนังสือพิมพ์'),
    adverbs: list('ทุกวัน, วันนี้, ตอนเช้า, ที่บ้าน, ที่ตลาด, ในครัว, ตอนกลางคืน, วันจันทร์, หน้าร้อน, อย่างช้า'),
    counting: list('มี, เห็น, ซื้อ, เหลือ'),
    counted: list('เก้าอี้/ตัว, ขวด/ใบ, ม้า/ตัว, ต้นไม้/ต้น, แมว/ตัว, เรือ/ลำ, ภูเขา/ลูก, ดาว/ดวง'),
    price: 'ราคา{n}บาท{m}สตางค์',
    telephone: list('โทร, หมายเลข, รหัส'),
  },
  uk: {
    months: list('січня, лютого, березня, квітня, травня, червня, липня, серпня, вересня, жовтня, листопада, грудня'),
    weekdays: list("понеділок, вівторок, середа, четвер, п'ятниця, субота, неділя"),
    subjects: list(
      'моя сестра, мій батько, вчителька, сусід, дівчинка, Іван, Марія, лікар, моя бабуся, хлопець, кухарка, селянин',
    ),
    verbs: list('купує, несе, шукає, знаходить, хоче, готує, продає, чистить, ховає, бачить'),
    objects: list('хліб, молоко, яблуко, книгу, ключі, каву, стіл, сир, стілець, рибу, квіти, суп, капелюх, газету'),
    adverbs: list('щодня, сьогодні, вранці, вдома, на ринку, на кухні, ввечері, у понеділок, влітку, повільно'),
    counting: list('маємо, бачу, купили, залишилось'),
    counted: list('стільців, пляшок, коней, дерев, котів, човнів, гір, зірок'),
    price: 'коштує {n} гривень {m} копійок',
    telephone: list('телефонуйте, номер, код'),
  },
};
