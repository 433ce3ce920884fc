// Between a RequestAuthentication's rule and its wire form.

import type { JwtRule } from '../policy/jwt-rule.ts';
import type * as wire from '../wire/gen/handfast/policy/v1/traffic_policy.ts';

export function jwtRuleToWire(rule: JwtRule): wire.JwtRule {
  return {
    ...rule,
    audiences: [...rule.audiences],
    fromHeaders: [...rule.fromHeaders],
    fromParams: [...rule.fromParams],
    fromCookies: [...rule.fromCookies],
    outputPayloadToHeader: rule.outputPayloadToHeader ?? '',
    outputClaims: rule.outputClaims.map(({ header, claim }) => ({ header, claim: [...claim] })),
  };
}

export function jwtRuleFromWire({ outputPayloadToHeader, ...rule }: wire.JwtRule): JwtRule {
  return { ...rule, outputPayloadToHeader: outputPayloadToHeader === '' ? undefined : outputPayloadToHeader };
}
