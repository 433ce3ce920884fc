// Why a pod's ports have the mTLS modes that they have: every PeerAuthentication in its reach, in order of precedence, with why it decides or not.

import type { TlsSwitch } from '../../policy/model.ts';
import { type PoliciesInReach, peerAuthenticationPlaces, peerAuthenticationTiers } from '../../policy/namespace-policies.ts';
import {
  type PeerAuthentication,
  type PeerAuthenticationScope,
  type PeerAuthenticationTiers,
  peerAuthenticationScopes,
  resolvePeerAuthentication,
  resolveShadow,
  winnerOf,
} from '../../policy/peer-authentication.ts';
import { type Selections, sourceOf, whyNot } from '../../policy/policy-object.ts';
import type { PolicySubject } from '../../policy/policy-subject.ts';
import { describeNotHeld, WON } from './explain-words.ts';

export interface InboundCandidate {
  readonly scope: PeerAuthenticationScope | 'default';
  readonly source: string;
  readonly mode: string;
  /** `won`, or why not. */
  readonly outcome: string;
}

export interface InboundExplanation {
  /** Undefined: the workload, for all ports that are not named. */
  readonly port?: number;
  readonly mode: string;
  readonly source: string;
  /** What it would be if what is in dry-run were in force, where that is something else. */
  readonly dryRunMode?: string;
  readonly dryRunSource?: string;
  readonly candidates: readonly InboundCandidate[];
}

/** The workload first, then each port that a PeerAuthentication in reach names. */
export function explainInbound(within: PoliciesInReach, of: { subject: PolicySubject; selections: Selections }): InboundExplanation[] {
  const tiers = peerAuthenticationTiers(within, of.subject, of.selections);
  const live = resolvePeerAuthentication(tiers);
  const shadow = resolveShadow(tiers, live);
  const ports = within.own.selecting.all.flatMap(({ portModes }) => [...portModes.keys()]);
  return [undefined, ...[...new Set(ports)].sort((a, b) => a - b)].map((port) => {
    const own = (switches: typeof live) => (port === undefined ? switches.inbound : (switches.inboundPorts.get(port) ?? switches.inbound));
    const decided = own(live);
    const wouldBe = shadow === undefined ? decided : own(shadow);
    return {
      ...(port === undefined ? {} : { port }),
      mode: decided.mode,
      source: decided.source,
      ...(wouldBe.mode === decided.mode ? {} : { dryRunMode: wouldBe.mode, dryRunSource: wouldBe.source }),
      candidates: candidatesFor({ port, decided, tiers, within, ...of }),
    };
  });
}

interface Question {
  readonly port: number | undefined;
  readonly decided: TlsSwitch;
  readonly tiers: PeerAuthenticationTiers;
  readonly within: PoliciesInReach;
  readonly subject: PolicySubject;
  readonly selections: Selections;
}

function candidatesFor(question: Question): InboundCandidate[] {
  const places = peerAuthenticationPlaces(question.within);
  const candidates = peerAuthenticationScopes.toReversed().flatMap((scope) =>
    places[scope].all.map((policy): InboundCandidate => {
      // A port mode is asked of the workload's scope alone; elsewhere the mode is the workload's.
      const mode = modeOf(policy, question.port) ?? 'UNSET';
      return { scope, source: sourceOf('PeerAuthentication', policy), mode, outcome: outcomeOf(policy, scope, question) };
    }),
  );
  const outcome = question.decided.source === 'default' ? WON : overriddenBy(question.decided.source);
  return [...candidates, { scope: 'default', source: 'default', mode: 'PERMISSIVE', outcome }];
}

function modeOf(policy: PeerAuthentication, port: number | undefined) {
  return (port === undefined ? undefined : policy.portModes.get(port)) ?? policy.mode;
}

function outcomeOf(
  policy: PeerAuthentication,
  scope: PeerAuthenticationScope,
  { port, decided, tiers, subject, selections }: Question,
): string {
  const refused = whyNot(policy, subject, selections);
  if (refused !== undefined) return describeNotHeld(refused, policy);
  if (policy.dryRun) return winnerOf(tiers[scope], { dryRun: true }) === policy ? 'dry-run: would come first in its scope' : 'dry-run';
  const winner = winnerOf(tiers[scope]);
  if (winner !== undefined && winner !== policy) return losesTo(policy, winner);
  if (modeOf(policy, port) === undefined) return 'UNSET: inherits';
  // The switch names its port where the port's own mode decided.
  const source = sourceOf('PeerAuthentication', policy);
  return decided.source === source || decided.source === `${source} port ${port}` ? WON : overriddenBy(decided.source);
}

/** Both hold, and both are of one scope. */
function losesTo(policy: PeerAuthentication, winner: PeerAuthentication): string {
  const source = sourceOf('PeerAuthentication', winner);
  if (winner.scopeConfig !== undefined && policy.scopeConfig === undefined) return `${source} wins: one in a ScopeConfig comes first`;
  if (winner.scopeConfig?.priority !== policy.scopeConfig?.priority) return `${source} wins: its priority is higher`;
  return winner.createdAt === policy.createdAt ? `${source} wins: its name comes first` : `older ${source} wins`;
}

function overriddenBy(source: string): string {
  return `overridden by ${source}`;
}
