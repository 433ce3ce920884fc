// Every wait has an end: a promise, or the error that says which deadline passed.

/** Rejects with `late()` when `promise` takes longer than `ms`; calls `cleanUp` then, so that what was waited for is not left behind. */
export async function withDeadline<T>(promise: Promise<T>, deadline: { ms: number; late: () => Error; cleanUp?: () => void }): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      deadline.cleanUp?.();
      reject(deadline.late());
    }, deadline.ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
