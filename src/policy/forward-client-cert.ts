// What the application hears of who called it, in x-forwarded-client-cert, by the names that Envoy and Istio have for it.

/**
 * Whoever has not proven an identity brings nothing in, in any of them: Envoy's ALWAYS_FORWARD_ONLY, which takes anybody's word, is not among them.
 * SANITIZE: the application gets none. FORWARD_ONLY: what a proven peer sent. APPEND_FORWARD: that, and the peer itself behind it. SANITIZE_SET: the peer alone.
 */
export const forwardClientCertModes = ['SANITIZE', 'FORWARD_ONLY', 'APPEND_FORWARD', 'SANITIZE_SET'] as const;
export type ForwardClientCertMode = (typeof forwardClientCertModes)[number];
