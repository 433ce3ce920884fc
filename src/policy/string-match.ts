// How policies compare names: whole, by beginning, by end, or whether there is one.

/** `presence`: there must be one, whichever. */
export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly value: string }
  | { readonly kind: 'presence'; readonly value: '' };

/** Nobody, which is the empty text, is matched by nothing: `*` is "somebody", and no prefix or suffix is empty. */
export function matchesText({ kind, value }: StringMatch, text: string): boolean {
  if (text === '') return false;
  switch (kind) {
    case 'exact':
      return text === value;
    case 'prefix':
      return text.startsWith(value);
    case 'suffix':
      return text.endsWith(value);
    case 'presence':
      return true;
    default:
      return kind satisfies never;
  }
}
