// Which URLs control may ask for somebody's keys: whoever writes a policy must not send it to services that only it can reach.

/** Why it may not; undefined where it may. Plaintext is for this machine alone, where nobody can listen. */
export function keysUrlProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) return `${JSON.stringify(text)} is no URL`;
  const isPlain = url.protocol === 'http:' && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol !== 'https:' && !isPlain) return `${JSON.stringify(text)}: https is needed (http on loopback alone)`;
  if (url.username !== '' || url.password !== '' || url.hash !== '') return `${JSON.stringify(text)}: without user, password and fragment`;
  return undefined;
}
