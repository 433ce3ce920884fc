// Paths with wildcards between slashes, as AuthorizationPolicies have them: `{*}` is one segment, `{**}` any number of them
// (https://istio.io/latest/docs/reference/config/security/authorization-policy/#Operation). No regular expression is made of what somebody wrote.

const ONE = '{*}';
const ANY = '{**}';

export function isPathTemplate(text: string): boolean {
  return text.includes(ONE) || text.includes(ANY);
}

/** Why it cannot be used; undefined where it can. As Istio has it: `{**}` once at most and nothing with a `{*}` after it, and a wildcard is the whole of its segment, but for what follows a `{**}`. */
export function pathTemplateProblem(text: string): string | undefined {
  if (!text.startsWith('/')) return 'a path template begins with /';
  const segments = text.slice(1).split('/');
  if (segments.some((segment) => segment !== ONE && segment !== ANY && /[{}*]/.test(segment)))
    return 'in a path template {*} and {**} stand for whole segments, and there is no * beside them';
  const first = segments.indexOf(ANY);
  if (first >= 0 && segments.slice(first + 1).some((segment) => segment === ANY || segment === ONE))
    return 'no {*} and no second {**} may follow a {**}';
  return undefined;
}

/** A `{*}` takes no empty segment; a `{**}` takes at least one, which may be empty, but for the segments that follow it: `/a/{**}` has `/a/` and not `/a`. */
export function matchesPathTemplate(template: string, path: string): boolean {
  if (!path.startsWith('/')) return false;
  const wanted = segmentsOf(template, templates);
  const is = segmentsOf(path, paths);
  const any = wanted.indexOf(ANY);
  if (any < 0) return wanted.length === is.length && wanted.every((segment, index) => matchesSegment(segment, is[index]));
  const tail = wanted.slice(any + 1);
  if (is.length < any + 1 + tail.length) return false;
  const behind = is.length - tail.length;
  return (
    wanted.slice(0, any).every((segment, index) => matchesSegment(segment, is[index])) &&
    tail.every((segment, index) => segment === is[behind + index])
  );
}

/** Taken apart once: a request's path is held against many templates, and a template against many paths. */
const templates = new Map<string, readonly string[]>();
const paths = new Map<string, readonly string[]>();
const MAX_KEPT = 10_000;

function segmentsOf(text: string, kept: Map<string, readonly string[]>): readonly string[] {
  const known = kept.get(text);
  if (known !== undefined) return known;
  const segments = text.slice(1).split('/');
  // Of paths, which callers make up, the last one.
  if (kept === paths || kept.size >= MAX_KEPT) kept.clear();
  kept.set(text, segments);
  return segments;
}

function matchesSegment(wanted: string, is: string | undefined): boolean {
  return wanted === ONE ? is !== undefined && is !== '' : wanted === is;
}
