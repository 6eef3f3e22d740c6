// Numbers as people read them.

const percents = [0, 1].map(
  (digits) =>
    new Intl.NumberFormat("en", {
      style: "percent",
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
    }),
);
const counts = new Intl.NumberFormat("en");
const long = new Intl.NumberFormat("en", {
  notation: "compact",
  compactDisplay: "long",
  maximumSignificantDigits: 4,
});

export const count = (number) => counts.format(number);

export const plural = (number, one, many = `${one}s`) =>
  `${count(number)} ${number === 1 ? one : many}`;

// Only what is certain reads 100%, and only what is impossible 0%.
export function percent(share) {
  if (!Number.isFinite(share)) return "unknown";
  if (share > 0 && share < 0.001) return "< 0.1%";
  if (share < 1 && share > 0.999) return "> 99.9%";
  return percents[share === 0 || share === 1 ? 0 : 1].format(share);
}

// At most four significant digits, but whole numbers such as years in full, and 3 billion in words.
export function short(number) {
  const size = Math.abs(number);
  if (size >= 1e7 && size < 1e15) return signed(long.format(number));
  if (size >= 1e15 || (size > 0 && size < 1e-4)) {
    return signed(String(Number(number.toPrecision(3)).toExponential()));
  }
  if (Number.isInteger(number)) return signed(String(number));
  return signed(String(Number(number.toPrecision(Math.max(4, Math.ceil(Math.log10(size)) + 1)))));
}

const signed = (text) => text.replaceAll("-", "−");

// A power of ten that makes some tens to hundreds of steps of the range.
export function stepOf({ min, max, whole }) {
  if (whole) return "1";
  const width = max - min;
  if (!(width > 0 && width < Infinity)) return "any";
  return String(Number(`1e${Math.floor(Math.log10(width / 20))}`));
}
