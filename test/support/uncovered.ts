// The environment for child processes that are killed: one that dies while it writes its coverage leaves half a file, and then nobody's is reported.

export function uncovered(): NodeJS.ProcessEnv {
  const { NODE_V8_COVERAGE: _directory, ...env } = process.env;
  return env;
}
