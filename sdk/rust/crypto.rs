//! Cryptography with keys that stay with Loam.

use super::error::Result;
use super::{api, host};

/// CryptoStore is a component of the crypto capability. Keys are named as the component names them, algorithms as in JWA
/// (RFC 7518).
#[derive(Clone, Debug)]
pub struct CryptoStore(String);

/// The component of that name; "" is the default one.
pub fn crypto(component: &str) -> CryptoStore {
    CryptoStore(component.to_string())
}

/// Cipher is one operation of a key, as encrypt and its like take it.
#[derive(Clone, Debug, Default)]
pub struct Cipher {
    pub key: String,
    /// A256GCM, RSA-OAEP-256…
    pub algorithm: String,
    /// For ciphers that take one; never the same twice for a key.
    pub nonce: Vec<u8>,
    /// What an authenticated cipher covers beside the data.
    pub associated: Vec<u8>,
}

impl CryptoStore {
    /// Encrypts a message in the form dapr.io/enc/v1, which names the key that opens it. algorithm is how that key wraps
    /// the message's own: AES (A256KW) or RSA (RSA-OAEP-256).
    pub fn seal(&self, key: &str, algorithm: &str, message: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let request = api::CryptoSealRequest {
            component: self.0.clone(),
            key: key.to_string(),
            algorithm: algorithm.to_string(),
            data: message.into(),
            ..Default::default()
        };
        host::invoke::<api::CryptoSealResponse>("crypto.Seal", &request).map(|r| r.data)
    }

    /// Opens what seal sealed. An empty key is the one that the message names; a function that takes messages of
    /// strangers names it itself. InvalidArgument: it was changed, or is of another key.
    pub fn open(&self, key: &str, sealed: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let request =
            api::CryptoOpenRequest { component: self.0.clone(), key: key.to_string(), data: sealed.into() };
        host::invoke::<api::CryptoOpenResponse>("crypto.Open", &request).map(|r| r.data)
    }

    /// One operation by itself: the ciphertext, and the tag, which is empty where the algorithm has none. seal does
    /// without nonces.
    pub fn encrypt(&self, by: &Cipher, data: impl Into<Vec<u8>>) -> Result<(Vec<u8>, Vec<u8>)> {
        let by = by.clone();
        let request = api::CryptoEncryptRequest {
            component: self.0.clone(),
            key: by.key,
            algorithm: by.algorithm,
            nonce: by.nonce,
            associated: by.associated,
            data: data.into(),
        };
        host::invoke::<api::CryptoEncryptResponse>("crypto.Encrypt", &request).map(|r| (r.data, r.tag))
    }

    /// Undoes encrypt.
    pub fn decrypt(&self, by: &Cipher, ciphertext: impl Into<Vec<u8>>, tag: &[u8]) -> Result<Vec<u8>> {
        let by = by.clone();
        let request = api::CryptoDecryptRequest {
            component: self.0.clone(),
            key: by.key,
            algorithm: by.algorithm,
            nonce: by.nonce,
            associated: by.associated,
            data: ciphertext.into(),
            tag: tag.to_vec(),
        };
        host::invoke::<api::CryptoDecryptResponse>("crypto.Decrypt", &request).map(|r| r.data)
    }

    /// encrypt for what is a key itself, with a key that is for that.
    pub fn wrap(&self, by: &Cipher, key: impl Into<Vec<u8>>) -> Result<(Vec<u8>, Vec<u8>)> {
        let by = by.clone();
        let request = api::CryptoWrapRequest {
            component: self.0.clone(),
            key: by.key,
            algorithm: by.algorithm,
            nonce: by.nonce,
            associated: by.associated,
            data: key.into(),
        };
        host::invoke::<api::CryptoWrapResponse>("crypto.Wrap", &request).map(|r| (r.data, r.tag))
    }

    /// Undoes wrap.
    pub fn unwrap(&self, by: &Cipher, wrapped: impl Into<Vec<u8>>, tag: &[u8]) -> Result<Vec<u8>> {
        let by = by.clone();
        let request = api::CryptoUnwrapRequest {
            component: self.0.clone(),
            key: by.key,
            algorithm: by.algorithm,
            nonce: by.nonce,
            associated: by.associated,
            data: wrapped.into(),
            tag: tag.to_vec(),
        };
        host::invoke::<api::CryptoUnwrapResponse>("crypto.Unwrap", &request).map(|r| r.data)
    }

    /// Signs a digest that was made with the algorithm's hash; with EdDSA, the message itself.
    pub fn sign(&self, key: &str, algorithm: &str, digest: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        let request = api::CryptoSignRequest {
            component: self.0.clone(),
            key: key.to_string(),
            algorithm: algorithm.to_string(),
            digest: digest.into(),
        };
        host::invoke::<api::CryptoSignResponse>("crypto.Sign", &request).map(|r| r.signature)
    }

    /// Tells whether a signature is good.
    pub fn verify(&self, key: &str, algorithm: &str, digest: impl Into<Vec<u8>>, signature: &[u8]) -> Result<bool> {
        let request = api::CryptoVerifyRequest {
            component: self.0.clone(),
            key: key.to_string(),
            algorithm: algorithm.to_string(),
            digest: digest.into(),
            signature: signature.to_vec(),
        };
        host::invoke::<api::CryptoVerifyResponse>("crypto.Verify", &request).map(|r| r.valid)
    }

    /// The public half of a key, in PEM. NotFound: there is none, or it is symmetric.
    pub fn public_key(&self, key: &str) -> Result<String> {
        self.public(key, false)
    }

    /// public_key as a JSON Web Key (RFC 7517).
    pub fn public_jwk(&self, key: &str) -> Result<String> {
        self.public(key, true)
    }

    fn public(&self, key: &str, jwk: bool) -> Result<String> {
        let request = api::CryptoPublicKeyRequest { component: self.0.clone(), key: key.to_string(), jwk };
        host::invoke::<api::CryptoPublicKeyResponse>("crypto.PublicKey", &request).map(|r| r.text)
    }
}
