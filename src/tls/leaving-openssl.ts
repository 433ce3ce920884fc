// node:tls says that a handshake is done from inside OpenSSL's state machine, and promises settled there continue there too. A continuation
// that resets the connection frees the SSL object beneath the running function: a crash (seen as SIGSEGV under policy edits and load).

/** Runs `act` once the native stack has unwound. */
export function leavingOpenSsl(act: () => void): void {
  setImmediate(act);
}
