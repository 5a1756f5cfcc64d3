//! OpenPGP for marb-backup: encryption as a [`Transform`](backup_core::Transform), and the
//! authentication of manifests.
//!
//! - [`OpenPgp`] seals to passphrases and public keys what `gpg --decrypt` opens, and opens what
//!   gpg sealed.
//! - [`Passphrase`], [`Recipient`] (a public key) and [`SecretKey`] are read from bytes handed in;
//!   nothing here opens a file, asks an agent or looks at a keyring.
//! - [`Authenticator`] writes and checks `manifest.json.sig`.
//! - [`recognise`] knows an encrypted message by its first bytes.
//!
//! Architecture invariant: an error never carries a secret, and `Ok` from
//! [`decode`](backup_core::Transform::decode) means that the integrity check at the end of the
//! message was right and that nothing followed it.
//!
//! Absent on purpose: compression inside OpenPGP, checking signatures inside messages, making
//! keys, the web of trust. docs/decisions/openpgp.md says why things are as they are.

/// The stage that errors of this crate name.
pub(crate) const STAGE: &str = "openpgp";

mod anywhere;
mod authenticator;
mod bridge;
mod certificate;
mod chunked;
mod ends;
mod hmac_seal;
mod keyring;
mod open;
mod openpgp;
mod passphrase;
mod recipient;
mod recognise;
mod secret_key;

pub use authenticator::{Authentic, Authenticator, Signer};
pub use openpgp::OpenPgp;
pub use passphrase::Passphrase;
pub use recipient::{Certificate, Recipient};
pub use recognise::{RECOGNISE_BYTES, recognise};
pub use secret_key::SecretKey;

#[cfg(test)]
mod tests;
