// The C library, for the system calls that Node does not offer.

import koffi from 'koffi';

export const libc = koffi.load('libc.so.6');

/** Plain pointers: koffi would otherwise turn every buffer into arrays and back, which costs more than the call. `value` and `length` are buffers of the caller's; 0 where it went well. */
export const getsockopt = libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)');
