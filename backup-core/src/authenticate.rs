//! Who wrote a manifest: without this, anyone with a public key could plant a backup, and a
//! restore runs its SQL as superuser.

use crate::Result;

/// Signs manifests and tells ours from forged ones. The manifest holds the digests of all
/// parts and companions, so its authentication covers them.
pub trait Authenticate: Send + Sync {
    /// The content of `manifest.json.sig` for these exact bytes.
    ///
    /// # Errors
    /// When it can't be made.
    fn sign(&self, manifest: &[u8]) -> Result<Vec<u8>>;

    /// Checks a manifest against its signature.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) when it is forged or altered,
    /// [`ErrorKind::Unchecked`](crate::ErrorKind::Unchecked) when no key at hand can tell.
    fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<()>;
}
