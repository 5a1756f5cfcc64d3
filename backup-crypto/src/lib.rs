//! OpenPGP for marb-backup.

/// The stage that errors of this crate name.
pub(crate) const STAGE: &str = "openpgp";

mod authenticator;
mod bridge;
mod certificate;
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
pub use recipient::Recipient;
pub use recognise::{RECOGNISE_BYTES, recognise};
pub use secret_key::SecretKey;

#[cfg(test)]
mod tests;
