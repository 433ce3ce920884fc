// What a change of policy would have meant for everybody who came by: each recorded connection is judged again, as things are and as they would be.

import { isPolicyFailure, type LedgerEntry } from '../../observe/ledger-entry.ts';
import { authorizationKey, decideForAllRequests } from '../../policy/authorization.ts';
import { decideArrival, decideInbound, decideOutbound, type OutboundDecision, readsRequests, type Transport } from '../../policy/decide.ts';
import type { MeshSnapshot } from '../../policy/mesh-snapshot.ts';
import { switchFor, type Workload } from '../../policy/model.ts';
import type { Verdict } from '../../policy/verdict.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { type Conversation, conversations } from './conversations.ts';
import type { LedgerInstance } from './ledger-instance.ts';
import { answeringIn, podOf } from './successors.ts';

export interface ReplayedArrival extends Conversation {
  readonly change: 'would refuse' | 'would newly allow';
  /** Why it would be refused; or is, until now. */
  readonly code: string;
  readonly reason: string;
}

/** A client whose sidecar would dial otherwise. */
export interface ReplayedDeparture {
  readonly client: string;
  readonly destination: string;
  readonly port: number;
  readonly before: string;
  readonly after: string;
  readonly connections: number;
  readonly lastSeen: number;
}

export interface Replay {
  /** How many recorded entries were judged, and how many were not. */
  readonly judged: number;
  readonly notJudged: number;
  /** `gone`: of pods that are gone and that nobody has taken the place of; `unbelieved`: told by others than the pods' own sidecars; `requests`: it depends on what was asked, which connections do not tell. */
  readonly notJudgedBecause: { readonly gone: number; readonly unbelieved: number; readonly requests: number };
  /** Connections that the ledgers had no room for. */
  readonly missing: number;
  readonly inbound: readonly ReplayedArrival[];
  readonly outbound: readonly ReplayedDeparture[];
}

/** One pod as it is and as it would be. */
interface Judge {
  readonly before: Workload;
  readonly after: Workload;
}

interface Recorded {
  readonly pod: string;
  /** The pod itself; or those that took its place, without such as are alike. Never none. */
  readonly judges: readonly Judge[];
  readonly entry: LedgerEntry;
}

interface Meshes {
  readonly before: MeshSnapshot;
  readonly after: MeshSnapshot;
}

export function replay(instances: readonly LedgerInstance[], before: MeshSnapshot, after: MeshSnapshot): Replay {
  const meshes = { before, after };
  const answering = answeringIn(before.registry.workloads());
  const unlike = unlikeIn(meshes);
  const recorded: Recorded[] = [];
  const notJudgedBecause = { gone: 0, unbelieved: 0, requests: 0 };
  for (const run of instances) {
    const answer = answering(run);
    const judges = unlike(answer?.pods ?? []);
    const pod = answer?.isGone === true ? `${run.pod} (gone)` : run.pod;
    if (judges.length > 0) for (const entry of run.entries) recorded.push({ pod, judges, entry });
    else notJudgedBecause[answer === undefined ? 'unbelieved' : 'gone'] += run.entries.length;
  }
  const judged = recorded
    .filter(({ entry }) => entry.direction === 'inbound')
    .flatMap((of) => {
      const arrival = judgeArrival(of, meshes);
      if (arrival !== 'requests') return arrival ?? [];
      notJudgedBecause.requests++;
      return [];
    });
  const dialled = recorded.filter(({ entry }) => entry.direction === 'outbound').flatMap((of) => judgeDeparture(of, meshes) ?? []);
  return {
    judged: judged.length + dialled.length,
    notJudged: notJudgedBecause.gone + notJudgedBecause.unbelieved + notJudgedBecause.requests,
    notJudgedBecause,
    missing: instances.reduce((sum, { dropped, forgotten }) => sum + dropped + forgotten, 0),
    inbound: conversations(judged.flatMap(({ changed }) => changed ?? [])),
    outbound: merged(dialled.filter((departure) => departure.before !== departure.after)),
  };
}

/** One of each that would judge alike: a workload has many replicas, and each of many gone ones has many entries. */
function unlikeIn({ before, after }: Meshes): (pods: readonly Workload[]) => readonly Judge[] {
  const kinds = new Map<Workload, string>();
  const kindOf = (judge: Judge): string => {
    const known = kinds.get(judge.before);
    if (known !== undefined) return known;
    const kind = JSON.stringify([ruledBy(before, judge.before), ruledBy(after, judge.after)], (_, value: unknown) =>
      value instanceof Map ? [...value] : value,
    );
    kinds.set(judge.before, kind);
    return kind;
  };
  return (pods) => {
    const judges = pods.flatMap((pod): Judge[] => {
      const then = after.registry.workload(pod.namespace, pod.name);
      return then === undefined ? [] : [{ before: pod, after: then }];
    });
    return judges.length < 2 ? judges : [...new Map(judges.map((judge) => [kindOf(judge), judge])).values()];
  };
}

function ruledBy({ policies, authorizations }: MeshSnapshot, pod: Workload): unknown {
  const { workload: _, ...switches } = policies.get(pod.uid) ?? {};
  const { policies: all, missing } = authorizations.of(pod);
  return [switches, all.map(authorizationKey), missing];
}

interface JudgedArrival {
  readonly server: string;
  readonly entry: LedgerEntry;
  readonly extra: Pick<ReplayedArrival, 'change' | 'code' | 'reason'>;
}

/** Undefined for what policy has no word in: it ended before it could be judged, or for another reason. */
function judgeArrival({ pod, entry, judges }: Recorded, meshes: Meshes): { changed: JudgedArrival | undefined } | 'requests' | undefined {
  const transport = transportOf(entry);
  // Without addresses it never came as far as policy.
  if (entry.peerAddress === '' || entry.ownAddress === '') return undefined;
  if (transport === undefined || (entry.outcome !== 'allowed' && !isPolicyFailure(entry))) return undefined;
  const verdict = (mesh: MeshSnapshot, workload: Workload): Verdict | undefined => {
    const switches = mesh.policies.get(workload.uid);
    if (switches === undefined) return { allowed: false, code: 'NO_POLICY', reason: `no policy for pod ${podOf(workload)}` };
    const arrival = {
      transport,
      // Proven, never what is registered at the address.
      peer: entry.peerId === '' ? undefined : parseSpiffeId(entry.peerId),
      sourceIp: entry.peerAddress,
      destination: { address: entry.ownAddress, port: entry.port },
    };
    const authorizations = mesh.authorizations.of(workload);
    if (!readsRequests(switches, arrival)) return decideArrival(arrival, { switches, authorizations });
    const byTransport = decideInbound(switchFor(switches, arrival.destination.port), transport);
    return byTransport.allowed ? decideForAllRequests(authorizations, arrival) : byTransport;
  };
  let isOpen = false;
  const changes = judges.flatMap(({ before, after }): JudgedArrival['extra'][] => {
    const [was, is] = [verdict(meshes.before, before), verdict(meshes.after, after)];
    if (was === undefined || is === undefined) isOpen = true;
    else if (was.allowed && !is.allowed) return [{ change: 'would refuse', ...why(is) }];
    else if (!was.allowed && is.allowed) return [{ change: 'would newly allow', ...why(was) }];
    return [];
  });
  // It counts as refused if any of those would refuse it: nobody knows whom it will call.
  const extra = changes.find(({ change }) => change === 'would refuse') ?? changes[0];
  if (extra === undefined && isOpen) return 'requests';
  return { changed: extra === undefined ? undefined : { server: pod, entry, extra } };
}

function why({ code, reason }: Verdict & { allowed: false }): { code: string; reason: string } {
  return { code, reason };
}

/** Undefined where nobody can say whom it dialled. */
function judgeDeparture({ pod, entry, judges }: Recorded, meshes: Meshes): ReplayedDeparture | undefined {
  const dialled = judges.flatMap(({ before, after }) => {
    const was = dialledBy(meshes.before, before, entry);
    const is = dialledBy(meshes.after, after, entry);
    return was === undefined || is === undefined ? [] : [{ before: was.transport, after: is.transport }];
  });
  const found = dialled.find(({ before, after }) => before !== after) ?? dialled[0];
  if (found === undefined) return undefined;
  return {
    client: pod,
    destination: entry.service || entry.peerWorkload || entry.peerAddress,
    port: entry.port,
    ...found,
    connections: entry.connections,
    lastSeen: entry.lastSeen,
  };
}

function dialledBy(mesh: MeshSnapshot, client: Workload, { peerAddress, port, service: key }: LedgerEntry): OutboundDecision | undefined {
  const workload = mesh.registry.workloadAt(peerAddress);
  const policy = mesh.policies.get(client.uid);
  if (workload === undefined || policy === undefined) return undefined;
  const servicePort = workload.services.get(key)?.find(({ targetPort }) => targetPort === port)?.servicePort ?? port;
  const server = mesh.policies.get(workload.uid);
  return decideOutbound({ workload, port, service: mesh.registry.service(key), servicePort, client: policy, server });
}

/** One line for all the pods that a service has, or that a client has had. */
function merged(departures: readonly ReplayedDeparture[]): ReplayedDeparture[] {
  const by = new Map<string, ReplayedDeparture>();
  for (const departure of departures) {
    const { connections, lastSeen, ...what } = departure;
    const key = JSON.stringify(what);
    const known = by.get(key);
    by.set(key, {
      ...departure,
      connections: connections + (known?.connections ?? 0),
      lastSeen: Math.max(lastSeen, known?.lastSeen ?? 0),
    });
  }
  return [...by.values()];
}

function transportOf({ transport }: LedgerEntry): Transport | undefined {
  return transport === 'mtls' || transport === 'plaintext' || transport === 'passthrough-tls' ? transport : undefined;
}
