// What is redirected into the sidecar, from annotations to flags of `handfast iptables apply`.

import { HandfastError, messageOf } from '../errors.ts';

/** Checks and normalises a command line of `handfast iptables`, as that role does itself. Throws CONFIG_INVALID. */
export type CaptureArguments = (argv: readonly string[]) => readonly string[];

const PREFIX = 'traffic.sidecar.istio.io/';
const INTERFACES = 'exclude-interfaces';
const OPTIONS: Readonly<Record<string, string>> = {
  includeInboundPorts: 'include-inbound-ports',
  excludeInboundPorts: 'exclude-inbound-ports',
  includeOutboundPorts: 'include-outbound-ports',
  excludeOutboundPorts: 'exclude-outbound-ports',
  includeOutboundIPRanges: 'include-outbound-ip-ranges',
  excludeOutboundIPRanges: 'exclude-outbound-ip-ranges',
  excludeInterfaces: INTERFACES,
};

/** Only what annotations set. Each annotation that cannot be used is one more problem. */
export function captureFlags(of: {
  annotations: Readonly<Record<string, string>>;
  captureArguments: CaptureArguments;
  problems: string[];
}): string[] {
  return Object.entries(OPTIONS).flatMap(([annotation, option]) => {
    const text = of.annotations[PREFIX + annotation];
    if (text === undefined) return [];
    try {
      if (option === INTERFACES) checkInterfaces(text);
      const [, ...flags] = of.captureArguments(['apply', `--${option}=${text}`]);
      return flags;
    } catch (error) {
      if (!(error instanceof HandfastError)) throw error;
      of.problems.push(`annotation ${PREFIX}${annotation}: ${messageOf(error)}`);
      return [];
    }
  });
}

/** The role leaves these to the script, which would say so only when the pod is starting already. */
function checkInterfaces(text: string): void {
  if (text.trim() === '') return;
  for (const item of text.split(',').map((part) => part.trim())) {
    if (/^(?!-)(?=.{1,15}$)[A-Za-z0-9_.@-]*\+?$/.test(item)) continue;
    throw new HandfastError('CONFIG_INVALID', `${JSON.stringify(item)} is not accepted: names of interfaces separated by commas`);
  }
}
