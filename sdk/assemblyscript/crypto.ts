// Cryptography with keys that stay with Loam.

import * as api from "./api";
import * as host from "./host";
import { Result } from "./errors";

/** One operation of a key, as encrypt and its like take it. */
export class Cipher {
  nonce: Uint8Array = new Uint8Array(0); // for ciphers that take one; never the same twice for a key
  associated: Uint8Array = new Uint8Array(0); // what an authenticated cipher covers beside the data

  constructor(
    public key: string,
    public algorithm: string, // A256GCM, RSA-OAEP-256…
  ) {}
}

/** What encrypt and wrap made. */
export class Ciphertext {
  constructor(
    public data: Uint8Array,
    public tag: Uint8Array, // empty where the algorithm has none
  ) {}
}

/**
 * A component of the crypto capability. Keys are named as the component names them, algorithms as in JWA (RFC 7518).
 */
export class CryptoStore {
  constructor(private component: string) {}

  /**
   * Encrypts a message in the form dapr.io/enc/v1, which names the key that opens it. algorithm is how that key wraps the
   * message's own: AES (A256KW) or RSA (RSA-OAEP-256).
   */
  seal(key: string, algorithm: string, message: Uint8Array): Result<Uint8Array> {
    const q = new api.CryptoSealRequest();
    q.component = this.component;
    q.key = key;
    q.algorithm = algorithm;
    q.data = message;
    const r = host.call<api.CryptoSealResponse>("crypto.Seal", q);
    if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
    return Result.of<Uint8Array>(r.value.data);
  }

  /**
   * Opens what seal sealed. An empty key is the one that the message names; a function that takes messages of strangers
   * names it itself. InvalidArgument: it was changed, or is of another key.
   */
  open(key: string, sealed: Uint8Array): Result<Uint8Array> {
    const q = new api.CryptoOpenRequest();
    q.component = this.component;
    q.key = key;
    q.data = sealed;
    const r = host.call<api.CryptoOpenResponse>("crypto.Open", q);
    if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
    return Result.of<Uint8Array>(r.value.data);
  }

  /** One operation by itself; seal does without nonces. */
  encrypt(by: Cipher, data: Uint8Array): Result<Ciphertext> {
    const q = new api.CryptoEncryptRequest();
    q.component = this.component;
    q.key = by.key;
    q.algorithm = by.algorithm;
    q.nonce = by.nonce;
    q.associated = by.associated;
    q.data = data;
    const r = host.call<api.CryptoEncryptResponse>("crypto.Encrypt", q);
    if (!r.ok) return Result.failed<Ciphertext>(r.failure!);
    return Result.of<Ciphertext>(new Ciphertext(r.value.data, r.value.tag));
  }

  /** Undoes encrypt. */
  decrypt(by: Cipher, secret: Ciphertext): Result<Uint8Array> {
    const q = new api.CryptoDecryptRequest();
    q.component = this.component;
    q.key = by.key;
    q.algorithm = by.algorithm;
    q.nonce = by.nonce;
    q.associated = by.associated;
    q.data = secret.data;
    q.tag = secret.tag;
    const r = host.call<api.CryptoDecryptResponse>("crypto.Decrypt", q);
    if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
    return Result.of<Uint8Array>(r.value.data);
  }

  /** encrypt for what is a key itself, with a key that is for that. */
  wrap(by: Cipher, key: Uint8Array): Result<Ciphertext> {
    const q = new api.CryptoWrapRequest();
    q.component = this.component;
    q.key = by.key;
    q.algorithm = by.algorithm;
    q.nonce = by.nonce;
    q.associated = by.associated;
    q.data = key;
    const r = host.call<api.CryptoWrapResponse>("crypto.Wrap", q);
    if (!r.ok) return Result.failed<Ciphertext>(r.failure!);
    return Result.of<Ciphertext>(new Ciphertext(r.value.data, r.value.tag));
  }

  /** Undoes wrap. */
  unwrap(by: Cipher, wrapped: Ciphertext): Result<Uint8Array> {
    const q = new api.CryptoUnwrapRequest();
    q.component = this.component;
    q.key = by.key;
    q.algorithm = by.algorithm;
    q.nonce = by.nonce;
    q.associated = by.associated;
    q.data = wrapped.data;
    q.tag = wrapped.tag;
    const r = host.call<api.CryptoUnwrapResponse>("crypto.Unwrap", q);
    if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
    return Result.of<Uint8Array>(r.value.data);
  }

  /** Signs a digest that was made with the algorithm's hash; with EdDSA, the message itself. */
  sign(key: string, algorithm: string, digest: Uint8Array): Result<Uint8Array> {
    const q = new api.CryptoSignRequest();
    q.component = this.component;
    q.key = key;
    q.algorithm = algorithm;
    q.digest = digest;
    const r = host.call<api.CryptoSignResponse>("crypto.Sign", q);
    if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
    return Result.of<Uint8Array>(r.value.signature);
  }

  /** Tells whether a signature is good. */
  verify(key: string, algorithm: string, digest: Uint8Array, signature: Uint8Array): Result<bool> {
    const q = new api.CryptoVerifyRequest();
    q.component = this.component;
    q.key = key;
    q.algorithm = algorithm;
    q.digest = digest;
    q.signature = signature;
    const r = host.call<api.CryptoVerifyResponse>("crypto.Verify", q);
    if (!r.ok) return Result.failed<bool>(r.failure!);
    return Result.of<bool>(r.value.valid);
  }

  /** The public half of a key, in PEM or as a JSON Web Key. NotFound: there is none, or it is symmetric. */
  publicKey(key: string, jwk: bool = false): Result<string> {
    const q = new api.CryptoPublicKeyRequest();
    q.component = this.component;
    q.key = key;
    q.jwk = jwk;
    const r = host.call<api.CryptoPublicKeyResponse>("crypto.PublicKey", q);
    if (!r.ok) return Result.failed<string>(r.failure!);
    return Result.of<string>(r.value.text);
  }
}

/** The component of that name. */
export function crypto(component: string = ""): CryptoStore {
  return new CryptoStore(component);
}
