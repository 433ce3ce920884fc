// The C library, for the system calls that Node does not offer.

import koffi from 'koffi';

export const libc = koffi.load('libc.so.6');
