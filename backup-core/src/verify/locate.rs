//! Finds out which files of a copy are damaged, at which bytes, and who has them whole.

use std::sync::Arc;

use bytes::Bytes;

use super::compare::compare;
use super::copies::VerifiedCopy;
use super::{Check, Damage, Place, Stored};
use crate::backup::checksum_list;
use crate::layout::{MANIFEST, SHA256SUMS, SIGNATURE};
use crate::pipeline::Context;
use crate::read::{BackupReader, Origin};
use crate::{Digest, Error, ErrorKind, InMemory, Result, Source, read_small};

/// What a file should be, and where to get it.
pub(crate) struct GoodFile {
    /// The storage, or the manifest that it follows from.
    pub(crate) from: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) digest: Digest,
}

/// The damaged files of the copy number `index`.
pub(super) async fn locate(
    copies: &[VerifiedCopy],
    index: usize,
    context: &Context,
) -> Vec<Damage> {
    let copy = &copies[index];
    let mut damage = Vec::new();
    for file in suspects(copy) {
        if context.cancel.is_cancelled() {
            break;
        }
        let good_in = good_in(copies, index, &file);
        let place = async {
            let good = good_files(copies, index, &file).await;
            match good.first() {
                Some(good) => compared(&copy.reader, &file, good).await,
                None => alone(copy, &file).await,
            }
        };
        let place = match context.cancel.guard(place).await {
            Ok(place) => place,
            Err(_) => context.cancel.guard(alone(copy, &file)).await.unwrap_or(None),
        };
        damage.extend(place.map(|place| Damage { file, place, good_in }));
    }
    damage
}

/// Files that are damaged, or may be. A list of checksums that does not fit may mean the
/// signature as well.
fn suspects(copy: &VerifiedCopy) -> Vec<String> {
    let checks = &copy.report.checks;
    let wrong =
        |check: &&Check| check.stored == Stored::Wrong && check.what != super::SIGNATURE_CHECK;
    let mut files: Vec<String> =
        checks.iter().filter(wrong).map(|check| check.what.clone()).collect();
    let unsure = copy.report.stored(SHA256SUMS) == Stored::Wrong
        || copy.report.stored(super::SIGNATURE_CHECK) == Stored::Wrong
        || copy.report.origin.is_none();
    if unsure && copy.report.origin != Some(Origin::Proven) {
        files.push(SIGNATURE.to_owned());
    }
    files
}

/// The other copies of the same backup that have this file as it was written, as this run found.
fn good_copies<'a>(
    copies: &'a [VerifiedCopy],
    index: usize,
    file: &str,
) -> impl Iterator<Item = &'a VerifiedCopy> {
    let json = copies[index].reader.manifest_json();
    let others = copies.iter().enumerate().filter(move |(other, _)| *other != index);
    let same = others.filter(move |(_, copy)| copy.reader.manifest_json() == json);
    let file = file.to_owned();
    same.map(|(_, copy)| copy).filter(move |copy| has_good(copy, &file))
}

fn has_good(copy: &VerifiedCopy, file: &str) -> bool {
    let is_own = copy.wrong_manifest.is_none();
    match file {
        MANIFEST => is_own && copy.is_vouched_for(),
        SIGNATURE => copy.is_vouched_for() && copy.report.origin != Some(Origin::Unsigned),
        SHA256SUMS => copy.is_vouched_for() && copy.report.stored(file) == Stored::Whole,
        _ => copy.report.stored(file) == Stored::Whole,
    }
}

fn good_in(copies: &[VerifiedCopy], index: usize, file: &str) -> Vec<String> {
    good_copies(copies, index, file).map(|copy| copy.report.storage.clone()).collect()
}

/// Where a good version of a file can be had, the best first. Empty where there is none.
pub(crate) async fn good_files(copies: &[VerifiedCopy], index: usize, file: &str) -> Vec<GoodFile> {
    let mut files = Vec::new();
    let own = &copies[index];
    if file == SHA256SUMS && own.report.origin == Some(Origin::Proven) {
        // It follows from a manifest and a signature that are right.
        if let Ok(signature) = read_small(&own.reader.object(SIGNATURE)).await {
            let sums = list_of(&own.reader, Some(&signature));
            files.push(in_memory(MANIFEST, file, sums));
        }
    }
    for copy in good_copies(copies, index, file) {
        match good_file(copy, file).await {
            Ok(good) => files.push(good),
            Err(error) => {
                tracing::warn!(storage = copy.report.storage, file, "no longer good: {error}")
            }
        }
    }
    files
}

fn list_of(reader: &BackupReader, signature: Option<&[u8]>) -> Vec<u8> {
    checksum_list(reader.manifest(), reader.manifest_json(), signature)
}

fn in_memory(from: &str, file: &str, bytes: Vec<u8>) -> GoodFile {
    let digest = Digest::of(&bytes);
    let source = Arc::new(InMemory::new(file, Bytes::from(bytes)));
    GoodFile { from: from.to_owned(), source, digest }
}

async fn good_file(copy: &VerifiedCopy, file: &str) -> Result<GoodFile> {
    let (reader, from) = (&copy.reader, &copy.report.storage);
    if file == MANIFEST {
        return Ok(in_memory(from, file, reader.manifest_json().to_vec()));
    }
    if let Some(digest) = reader.recorded(file) {
        let source = Arc::new(reader.checked(file, digest.clone()));
        return Ok(GoodFile { from: from.clone(), source, digest });
    }
    let signature = match read_small(&reader.object(SIGNATURE)).await {
        Ok(signature) => Some(signature),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // Read once more, so looked at once more.
    let sums = list_of(reader, signature.as_deref());
    let listed = Digest::of(&sums);
    if file == SHA256SUMS || copy.report.stored(SHA256SUMS) == Stored::Whole {
        read_small(&reader.checked(SHA256SUMS, listed)).await?;
    }
    match (file, signature) {
        (SHA256SUMS, _) => Ok(in_memory(from, file, sums)),
        (SIGNATURE, Some(signature)) => Ok(in_memory(from, file, signature)),
        _ => Err(Error::failed("verify", format!("there is no {file}"))),
    }
}

async fn compared(reader: &BackupReader, file: &str, good: &GoodFile) -> Result<Option<Place>> {
    match compare(&reader.object(file), good.source.as_ref()).await {
        Ok(difference) => Ok(Place::of(&difference)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(Place::Missing)),
        Err(error) => Err(error),
    }
}

/// What can be told without anything to compare with.
async fn alone(copy: &VerifiedCopy, file: &str) -> Result<Option<Place>> {
    let there = copy.reader.storage().stat(&copy.reader.key(file)).await?;
    let Some(Digest { bytes, .. }) = copy.reader.recorded(file) else {
        // Which of manifest, signature and list is the wrong one, nobody can tell. And not every
        // backup has a signature.
        return Ok((there.is_none() && file == SHA256SUMS).then_some(Place::Missing));
    };
    let check = copy.report.checks.iter().find(|check| check.what == file);
    Ok(Some(match (there, check.and_then(|check| check.decoded)) {
        (None, _) => Place::Missing,
        (Some(object), _) if object.bytes != bytes => Place::Length { there: object.bytes, bytes },
        (_, Some(read)) if read < bytes => Place::Within { read, bytes },
        _ => Place::Somewhere { bytes },
    }))
}
