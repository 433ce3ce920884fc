// A switch that clients must follow is turned in stages, so that no request is lost whichever side hears of it first: the server takes both ways before clients change
// theirs, and closes the old one when they have.

import { type InboundSwitches, type MutualTlsMode, switchFor, type TlsSwitch, type TrafficPolicy } from '../policy/model.ts';

/** What servers take, and what clients dial by. */
interface Stage {
  readonly accept: InboundSwitches;
  readonly dial: InboundSwitches;
}

/** How long a stage lasts. `opened`: until every server takes both ways. `followed`: until every client has heard, and has drained what it had (proxy/when-quiet.ts). */
export interface StageTimes {
  readonly openedMs: number;
  readonly followedMs: number;
}

export const stageTimes: StageTimes = Object.freeze({ openedMs: 2_000, followedMs: 12_000 });

interface OnItsWay {
  readonly policy: TrafficPolicy;
  readonly plaintextClients: boolean;
  /** On the clock of `now`. */
  readonly dueAt: number;
  /** When it set out. */
  readonly since: number;
}

/** However often the target changes on the way, it is there after this. */
const MAX_STAGED_MS = 60_000;

export class StagedSwitches {
  readonly #times: StageTimes;
  readonly #published = new Map<string, Stage>();
  readonly #onTheirWay = new Map<string, OnItsWay>();

  constructor(times: StageTimes = stageTimes) {
    this.#times = times;
  }

  /** When the next stage is due; undefined while nothing is on its way. */
  get nextAt(): number | undefined {
    let next: number | undefined;
    for (const { dueAt } of this.#onTheirWay.values()) if (next === undefined || dueAt < next) next = dueAt;
    return next;
  }

  isOnItsWay(workload: string): boolean {
    return this.#onTheirWay.has(workload);
  }

  /** What to publish now for a policy that was resolved. `plaintextClients`: a rule of some client's side says DISABLE for it. `now`: milliseconds of any clock that never goes back. */
  turn(policy: TrafficPolicy, { plaintextClients, now }: { plaintextClients: boolean; now: number }): TrafficPolicy {
    const before = this.#published.get(policy.workload);
    const underWay = this.#onTheirWay.get(policy.workload);
    if (before !== undefined && underWay !== undefined && sameModes(underWay.policy, policy)) {
      // Something else of it has changed: that is no reason to hurry.
      this.#onTheirWay.set(policy.workload, { ...underWay, policy, plaintextClients });
      return { ...policy, ...before.accept, announced: before.dial };
    }
    if (before !== undefined && underWay !== undefined && nextStage(before, policy, plaintextClients) === undefined) {
      const accept = openTo(before.accept, policy, portsOf(before.accept, policy));
      if (!sameModes(accept, policy)) {
        // Clients dial as they should already, but not for long enough yet: another target is no reason to hurry either.
        const stage = { accept, dial: switchesOf(policy) };
        this.#published.set(policy.workload, stage);
        this.#onTheirWay.set(policy.workload, { ...underWay, policy, plaintextClients });
        return { ...policy, ...stage.accept, announced: stage.dial };
      }
    }
    return this.#enter(policy, { plaintextClients, now });
  }

  /** One stage further, for every workload whose stage is over. */
  advance(now: number): TrafficPolicy[] {
    const due = [...this.#onTheirWay.values()].filter(({ dueAt }) => dueAt <= now);
    return due.map(({ policy, plaintextClients }) => this.#enter(policy, { plaintextClients, now }));
  }

  forget(workload: string): void {
    this.#published.delete(workload);
    this.#onTheirWay.delete(workload);
  }

  #enter(policy: TrafficPolicy, { plaintextClients, now }: { plaintextClients: boolean; now: number }): TrafficPolicy {
    const before = this.#published.get(policy.workload);
    const since = this.#onTheirWay.get(policy.workload)?.since ?? now;
    const late = now - since >= MAX_STAGED_MS;
    const stage = before === undefined || late ? undefined : nextStage(before, policy, plaintextClients);
    this.#published.set(policy.workload, stage ?? { accept: switchesOf(policy), dial: switchesOf(policy) });
    if (stage === undefined) {
      this.#onTheirWay.delete(policy.workload);
      return policy;
    }
    const { openedMs, followedMs } = this.#times;
    const opening = stage.dial === before?.dial;
    this.#onTheirWay.set(policy.workload, { policy, plaintextClients, dueAt: now + (opening ? openedMs : followedMs), since });
    return { ...policy, ...stage.accept, announced: stage.dial };
  }
}

function switchesOf({ inbound, inboundPorts }: InboundSwitches): InboundSwitches {
  return { inbound, inboundPorts };
}

function sameModes(a: InboundSwitches, b: InboundSwitches): boolean {
  return portsOf(a, b).every((port) => modeAt(a, port) === modeAt(b, port));
}

/** Undefined: the target itself. */
function nextStage(now: Stage, target: InboundSwitches, plaintextClients: boolean): Stage | undefined {
  const ports = portsOf(now.accept, now.dial, target);
  const followed = ports.some((port) => dialsOtherwise(modeAt(now.dial, port), modeAt(target, port), plaintextClients));
  const opened = openTo(now.accept, target, ports);
  const closes = ports.some((port) => modeAt(opened, port) !== modeAt(target, port));
  if (followed) {
    // Clients do not change before the server takes both.
    const opens = ports.some((port) => modeAt(opened, port) !== modeAt(now.accept, port));
    if (opens) return { accept: opened, dial: now.dial };
    if (closes) return { accept: opened, dial: switchesOf(target) };
  }
  return undefined;
}

/** Whether a client that obeys the one would dial otherwise under the other. */
function dialsOtherwise(before: MutualTlsMode, after: MutualTlsMode, plaintextClients: boolean): boolean {
  const automatic = (before === 'DISABLE') !== (after === 'DISABLE');
  const asPlainAsAllowed = plaintextClients && (before === 'STRICT') !== (after === 'STRICT');
  return automatic || asPlainAsAllowed;
}

/** Takes whatever either takes. */
function openTo(before: InboundSwitches, target: InboundSwitches, ports: readonly (number | undefined)[]): InboundSwitches {
  const open = (port: number | undefined): TlsSwitch => {
    const [old, wanted] = [at(before, port), at(target, port)];
    return old.mode === wanted.mode
      ? wanted
      : { mode: 'PERMISSIVE', source: `${wanted.source}, on the way from ${old.mode} to ${wanted.mode}` };
  };
  return {
    inbound: open(undefined),
    inboundPorts: new Map(ports.flatMap((port) => (port === undefined ? [] : [[port, open(port)] as const]))),
  };
}

/** Every port that one of them names, and undefined for all others. */
function portsOf(...switches: readonly InboundSwitches[]): (number | undefined)[] {
  return [undefined, ...new Set(switches.flatMap(({ inboundPorts }) => [...inboundPorts.keys()]))];
}

function at(switches: InboundSwitches, port: number | undefined): TlsSwitch {
  return port === undefined ? switches.inbound : switchFor(switches, port);
}

function modeAt(switches: InboundSwitches, port: number | undefined): MutualTlsMode {
  return at(switches, port).mode;
}
