// node-forge's types describe the whole package; only its asn1 module is loaded.
declare module 'node-forge/lib/asn1.js' {
  import { asn1 } from 'node-forge';
  export default asn1;
}
