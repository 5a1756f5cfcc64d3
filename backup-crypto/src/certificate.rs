//! Reading OpenPGP certificates, and which of their keys may be used for what, when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backup_core::{Error, Result};
use pgp::composed::{PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::public_key::PublicKeyAlgorithm as Algorithm;
use pgp::packet::{KeyFlags, PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, Timestamp};

/// Certificates and keys read from one file, at most.
const MAX_KEYS_IN_FILE: usize = 1000;

const STAGE: &str = "openpgp key";

/// What a key is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Encrypt,
    Sign,
}

/// A key of a certificate that may be used, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Usable {
    pub(crate) key: AnyKey,
    pub(crate) expires: Option<SystemTime>,
}

/// The primary key of a certificate, or one of its subkeys.
#[derive(Debug, Clone)]
pub(crate) enum AnyKey {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

impl AnyKey {
    pub(crate) fn details(&self) -> &dyn KeyDetails {
        match self {
            Self::Primary(key) => key,
            Self::Subkey(key) => key,
        }
    }
}

/// Every key and certificate in a file: binary, or one or several armored blocks.
pub(crate) fn read_keys(content: &[u8]) -> Result<Vec<PublicOrSecret>> {
    let mut keys = Vec::new();
    for block in armored_blocks(content) {
        let (read, _) = PublicOrSecret::from_reader_many_buf(block).map_err(no_key)?;
        for key in read.take(MAX_KEYS_IN_FILE) {
            keys.push(key.map_err(no_key)?);
        }
    }
    if keys.is_empty() {
        return Err(Error::usage(STAGE, "the file holds no OpenPGP key"));
    }
    Ok(keys)
}

/// The library reads one armored block; a file that was put together with `cat` has several.
fn armored_blocks(content: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP";
    let starts: Vec<usize> = content
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(at, window)| *window == BEGIN && (*at == 0 || content[at - 1] == b'\n'))
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() || content[0] & 0x80 != 0 {
        return vec![content];
    }
    let ends = starts.iter().skip(1).copied().chain([content.len()]);
    starts.iter().zip(ends).map(|(start, end)| &content[*start..end]).collect()
}

fn no_key(error: pgp::errors::Error) -> Error {
    Error::usage(STAGE, "the file can't be read as an OpenPGP key").caused_by(error)
}

/// The newest key of `certificate` that may be used for `wanted` at `now`. Where all of them
/// have expired, the newest of these: a backup to an old key is better than none, and its owner
/// can still open it. Never a revoked one.
pub(crate) fn select(
    certificate: &SignedPublicKey,
    wanted: Use,
    now: SystemTime,
) -> Result<Usable> {
    let now = timestamp(now);
    let strict = select_at(certificate, wanted, When { now, used: now });
    let before_any_expiry = When { now, used: Timestamp::from_secs(0) };
    strict.or_else(|error| select_at(certificate, wanted, before_any_expiry).map_err(|_| error))
}

fn select_at(certificate: &SignedPublicKey, wanted: Use, when: When) -> Result<Usable> {
    let primary = PrimaryState::of(certificate, when)?;
    let candidates = candidates(certificate, &primary, wanted, when);
    let newest = candidates.into_iter().filter_map(Result::ok).max_by_key(|usable| {
        // A subkey is there for its purpose; the primary serves only where there is none.
        let is_subkey = matches!(usable.key, AnyKey::Subkey(_));
        (is_subkey, usable.key.details().created_at().as_secs())
    });
    newest.ok_or_else(|| nothing_usable(certificate, &primary, wanted, when))
}

/// Every key of `certificate` that could make a good signature at the time `used`. That it has
/// expired since does not matter; that it was revoked does.
pub(crate) fn signers(
    certificate: &SignedPublicKey,
    used: SystemTime,
    now: SystemTime,
) -> Result<Vec<AnyKey>> {
    let when = When { now: timestamp(now), used: timestamp(used) };
    let primary = PrimaryState::of(certificate, when)?;
    let usable = candidates(certificate, &primary, Use::Sign, when).into_iter();
    Ok(usable.filter_map(Result::ok).map(|usable| usable.key).collect())
}

/// Whether it is because of a revocation that nothing of `certificate` may be used for `wanted`.
pub(crate) fn is_revoked(certificate: &SignedPublicKey, wanted: Use, now: SystemTime) -> bool {
    if primary_is_revoked(certificate) {
        return true;
    }
    let when = When { now: timestamp(now), used: Timestamp::from_secs(0) };
    let Ok(primary) = PrimaryState::of(certificate, when) else { return false };
    let all = candidates(certificate, &primary, wanted, when);
    !all.iter().any(Result::is_ok) && all.iter().any(|one| matches!(one, Err(Unfit::Revoked)))
}

fn primary_is_revoked(certificate: &SignedPublicKey) -> bool {
    let key = &certificate.primary_key;
    certificate.details.revocation_signatures.iter().any(|s| s.verify_key(key).is_ok())
}

/// The two times that matter: the newest self-signatures of `now` say what holds, for a key that
/// is `used` then.
#[derive(Debug, Clone, Copy)]
struct When {
    now: Timestamp,
    used: Timestamp,
}

/// Fingerprint as gpg prints it: 40 capital hex digits.
pub(crate) fn fingerprint(key: &dyn KeyDetails) -> String {
    key.fingerprint().to_string().to_uppercase()
}

/// Key id as gpg prints it: 16 capital hex digits.
pub(crate) fn key_id(key: &dyn KeyDetails) -> String {
    key.legacy_key_id().to_string().to_uppercase()
}

/// Why a key can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    OtherPurpose,
    Unbound,
    Revoked,
    Expired(Timestamp),
}

/// What the self-signatures say of the primary key.
struct PrimaryState {
    flags: KeyFlags,
    expires: Option<Timestamp>,
}

impl PrimaryState {
    fn of(certificate: &SignedPublicKey, when: When) -> Result<Self> {
        let key = &certificate.primary_key;
        let name = || format!("the key {}", fingerprint(key));
        let details = &certificate.details;
        if primary_is_revoked(certificate) {
            return Err(Error::usage(STAGE, format!("{} is revoked", name()))
                .next_step("use the key that replaced it"));
        }
        let by_users = details.users.iter().filter(|user| {
            !user.signatures.iter().any(|s| {
                s.typ() == Some(SignatureType::CertRevocation)
                    && s.verify_certification(key, Tag::UserId, &user.id).is_ok()
            })
        });
        let certifications = by_users.flat_map(|user| {
            user.signatures.iter().filter(|s| {
                s.is_certification() && s.verify_certification(key, Tag::UserId, &user.id).is_ok()
            })
        });
        let direct = details.direct_signatures.iter().filter(|s| s.verify_key(key).is_ok());
        let newest = newest_in_force(certifications.chain(direct), when.now).ok_or_else(|| {
            Error::usage(STAGE, format!("{} has no valid signature of its own", name()))
                .next_step("export it again from the keyring it came from")
        })?;
        let expires = expiry(key, newest);
        if let Some(end) = expires.filter(|end| *end <= when.used) {
            return Err(expired(&name(), end));
        }
        Ok(Self { flags: newest.key_flags(), expires })
    }
}

fn candidates(
    certificate: &SignedPublicKey,
    primary: &PrimaryState,
    wanted: Use,
    when: When,
) -> Vec<Result<Usable, Unfit>> {
    let key = &certificate.primary_key;
    let mut all = Vec::new();
    if serves(wanted, &primary.flags, key.algorithm()) {
        let expires = primary.expires.map(SystemTime::from);
        all.push(Ok(Usable { key: AnyKey::Primary(key.clone()), expires }));
    }
    for subkey in &certificate.public_subkeys {
        all.push(subkey_state(subkey, key, wanted, when).map(|own| {
            let expires = [own, primary.expires].into_iter().flatten().min();
            let key = AnyKey::Subkey(subkey.key.clone());
            Usable { key, expires: expires.map(SystemTime::from) }
        }));
    }
    all
}

/// When the subkey expires, or why it can't be used.
fn subkey_state(
    subkey: &SignedPublicSubKey,
    primary: &PublicKey,
    wanted: Use,
    when: When,
) -> Result<Option<Timestamp>, Unfit> {
    let good = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
    let of_type = |wanted| subkey.signatures.iter().filter(move |s| s.typ() == Some(wanted));
    if of_type(SignatureType::SubkeyRevocation).any(|s| good(&s)) {
        return Err(Unfit::Revoked);
    }
    let bindings = of_type(SignatureType::SubkeyBinding).filter(good);
    let binding = newest_in_force(bindings, when.now).ok_or(Unfit::Unbound)?;
    if !serves(wanted, &binding.key_flags(), subkey.key.algorithm()) {
        return Err(Unfit::OtherPurpose);
    }
    // A signing subkey must itself agree to belong here, or anyone could adopt a stranger's.
    if wanted == Use::Sign {
        let agreed = binding.embedded_signature();
        let agrees =
            agreed.is_some_and(|s| s.verify_primary_key_binding(&subkey.key, primary).is_ok());
        if !agrees {
            return Err(Unfit::Unbound);
        }
    }
    match expiry(&subkey.key, binding) {
        Some(end) if end <= when.used => Err(Unfit::Expired(end)),
        expires => Ok(expires),
    }
}

fn serves(wanted: Use, flags: &KeyFlags, algorithm: Algorithm) -> bool {
    match wanted {
        Use::Encrypt => {
            let able = matches!(
                algorithm,
                Algorithm::RSA
                    | Algorithm::RSAEncrypt
                    | Algorithm::ECDH
                    | Algorithm::X25519
                    | Algorithm::X448
            );
            able && (flags.encrypt_storage() || flags.encrypt_comms())
        }
        Use::Sign => flags.sign(),
    }
}

/// The newest of good signatures that is neither expired nor from the future.
fn newest_in_force<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    now: Timestamp,
) -> Option<&'a Signature> {
    let in_force = signatures.filter(|signature| {
        let Some(created) = signature.created() else { return false };
        let lifetime = signature.signature_expiration_time().map_or(0, |d| d.as_secs());
        created <= now
            && (lifetime == 0 || created.as_secs().saturating_add(lifetime) > now.as_secs())
    });
    in_force.max_by_key(|signature| signature.created())
}

fn expiry(key: &dyn KeyDetails, signature: &Signature) -> Option<Timestamp> {
    let lifetime = signature.key_expiration_time()?.as_secs();
    let end = key.created_at().as_secs().saturating_add(lifetime);
    (lifetime > 0).then(|| Timestamp::from_secs(end))
}

fn nothing_usable(
    certificate: &SignedPublicKey,
    primary: &PrimaryState,
    wanted: Use,
    when: When,
) -> Error {
    let name = format!("the key {}", fingerprint(&certificate.primary_key));
    let purpose = match wanted {
        Use::Encrypt => "encryption",
        Use::Sign => "signing",
    };
    let reasons = candidates(certificate, primary, wanted, when);
    let reasons: Vec<Unfit> = reasons.into_iter().filter_map(Result::err).collect();
    let latest_expiry = reasons.iter().filter_map(|reason| match reason {
        Unfit::Expired(end) => Some(*end),
        _ => None,
    });
    if let Some(end) = latest_expiry.max() {
        return expired(&format!("the {purpose} subkey of {name}"), end);
    }
    let why = if reasons.contains(&Unfit::Revoked) {
        format!("the {purpose} subkey of {name} is revoked")
    } else {
        format!("{name} has no key for {purpose}")
    };
    Error::usage(STAGE, why).next_step(format!("add a subkey for {purpose}, or use another key"))
}

fn expired(name: &str, end: Timestamp) -> Error {
    let days = SystemTime::now()
        .duration_since(SystemTime::from(end))
        .map_or(0, |since| since.as_secs() / Duration::from_hours(24).as_secs());
    Error::usage(STAGE, format!("{name} expired {days} days ago"))
        .next_step("extend its expiry date and export it again, or use another key")
}

fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_secs(u32::try_from(seconds).unwrap_or(u32::MAX))
}
