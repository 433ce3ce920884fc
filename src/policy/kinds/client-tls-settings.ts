// trafficPolicy.tls of a DestinationRule: how a client speaks to a destination (https://istio.io/latest/docs/reference/config/networking/destination-rule/#ClientTLSSettings).

import { isAbsolute } from 'node:path/posix';
import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { type ClientTls, clientTlsModes } from '../model.ts';
import { unsupported } from './unsupported.ts';

const MAX_NAMES = 1000;
const fileName = z.string().refine(isAbsolute, "must be an absolute path: a file of the sidecar's own");
const fileFields = ['clientCertificate', 'privateKey', 'caCertificates'] as const;

const mode = z
  .enum(clientTlsModes)
  .optional()
  .transform((given, context) => {
    if (given !== undefined) return given;
    // Istio's default is DISABLE.
    const message = `is missing; accepted: ${clientTlsModes.join(', ')}. Without one it would be DISABLE, and a file cut short would turn mTLS off`;
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  });

export const clientTlsSettings = z
  .strictObject({
    mode,
    clientCertificate: fileName.optional(),
    privateKey: fileName.optional(),
    caCertificates: fileName.optional(),
    subjectAltNames: z.array(z.string().min(1)).max(MAX_NAMES).default([]),
    sni: z.string().min(1).max(253).optional(),
    credentialName: unsupported('there are no Kubernetes Secrets here; give clientCertificate, privateKey and caCertificates as files'),
    insecureSkipVerify: unsupported('a server is always verified; name its CA in caCertificates'),
    caCrl: unsupported("the mesh's own revocations always hold; for other servers none are read"),
  })
  .superRefine((tls, context) => {
    const refuse = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    const files = fileFields.filter((field) => tls[field] !== undefined);
    if (tls.mode === 'DISABLE' || tls.mode === 'ISTIO_MUTUAL') {
      const why = tls.mode === 'DISABLE' ? 'there is no TLS under DISABLE' : "under ISTIO_MUTUAL the mesh's own certificates are used";
      for (const field of files) refuse(field, `${why}: remove it, or use MUTUAL or SIMPLE`);
    }
    if (tls.mode === 'SIMPLE') {
      for (const field of files) if (field !== 'caCertificates') refuse(field, 'under SIMPLE a client shows no certificate: use MUTUAL');
    }
    if (tls.mode === 'MUTUAL') {
      for (const field of ['clientCertificate', 'privateKey'] as const)
        if (tls[field] === undefined) refuse(field, 'is missing: MUTUAL needs it');
    }
    if (tls.mode === 'ISTIO_MUTUAL') {
      for (const name of tls.subjectAltNames) {
        try {
          parseSpiffeId(name);
        } catch (error) {
          refuse('subjectAltNames', messageOf(error));
        }
      }
    }
  });

export function clientTlsOf(tls: z.output<typeof clientTlsSettings>, source: string): ClientTls {
  const { mode, subjectAltNames, sni, clientCertificate, privateKey, caCertificates } = tls;
  return { mode, subjectAltNames, sni, clientCertificate, privateKey, caCertificates, source };
}
