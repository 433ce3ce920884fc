// From what is known of a connection to what the ledger keeps of it.

import type { Sighting } from '../observe/ledger.ts';
import type { Known } from './connection.ts';
import type { Ending } from './tracked.ts';

/** Without an ending: it is about to be joined. */
export function sightingOf(known: Known, ending?: Ending): Sighting {
  const inbound = known.direction === 'inbound';
  const there = inbound ? known.downstream : (known.upstream ?? known.originalDestination);
  const { registered, shadow } = known;
  return {
    facts: {
      direction: known.direction,
      peerAddress: there?.address ?? '',
      peerId: known.peer?.id.uri ?? '',
      peerWorkload: registered === undefined ? '' : `${registered.namespace}/${registered.name}`,
      peerRegisteredId: registered?.identity?.uri ?? '',
      ownAddress: inbound ? (known.originalDestination?.address ?? '') : '',
      port: (inbound ? known.originalDestination : there)?.port ?? 0,
      service: inbound ? '' : (known.service ?? ''),
      transport: known.transport ?? 'unknown',
      outcome: ending?.decision ?? 'allowed',
      code: ending?.code ?? '',
      shadowCode: shadow?.allowed === false ? shadow.code : '',
    },
    ownId: known.ownId ?? '',
    expected: known.tlsSwitch?.mode === 'DISABLE',
  };
}
