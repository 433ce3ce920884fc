// Kubernetes quantities: 100m, 0.5, 128Mi, 1e3.

const QUANTITY = /^\+?(\d+\.?\d*|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?$/;

const DECIMAL = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'];
const BINARY = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** The amount, in bytes or cores; undefined for what is no quantity or a negative one. */
export function parseQuantity(text: string): number | undefined {
  const [, amount, suffix = '', exponent] = QUANTITY.exec(text) ?? [];
  if (amount === undefined) return undefined;
  if (exponent !== undefined) return Number(amount) * 10 ** Number(exponent);
  const binary = BINARY.indexOf(suffix);
  if (binary > 0) return Number(amount) * 1024 ** binary;
  return Number(amount) * 1000 ** (DECIMAL.indexOf(suffix) - DECIMAL.indexOf(''));
}
