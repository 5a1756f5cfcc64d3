//! Stands in for a storage that could not be opened, so that it is missed like one that is down.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    ByteRange, Creation, Error, ObjectInfo, Result, Sink, SinkWriter, SourceStream, Storage,
};

/// A storage of which every call fails with the error that kept it from being opened: a secret
/// that vanished, a command that gave none.
///
/// With it, a job that can do without this storage runs, and says why it is missing.
#[derive(Debug)]
pub struct Unopened {
    name: String,
    error: Error,
}

impl Unopened {
    /// Stands in for the storage `name`, which can't be opened because of `error`.
    pub fn new(name: impl Into<String>, error: Error) -> Self {
        Self { name: name.into(), error }
    }

    /// The error, once more for each call.
    fn why<T>(&self) -> Result<T> {
        let known = &self.error;
        let again = Error::new(known.kind(), known.stage().to_owned(), known.message().to_owned());
        let again = match known.advice() {
            Some(advice) => again.next_step(advice.to_owned()),
            None => again,
        };
        let causes = known.causes();
        Err(if causes.is_empty() { again } else { again.caused_by(causes.join(": ")) })
    }
}

#[async_trait]
impl Sink for Unopened {
    fn name(&self) -> &str {
        &self.name
    }

    async fn begin(&self, _key: &str) -> Result<Box<dyn SinkWriter>> {
        self.why()
    }
}

#[async_trait]
impl Storage for Unopened {
    async fn open(&self, _key: &str, _range: ByteRange) -> Result<Box<dyn SourceStream>> {
        self.why()
    }

    async fn stat(&self, _key: &str) -> Result<Option<ObjectInfo>> {
        self.why()
    }

    async fn list(&self, _prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.why()
    }

    async fn delete(&self, _key: &str) -> Result<()> {
        self.why()
    }

    async fn create_new(&self, _key: &str, _body: Bytes) -> Result<Creation> {
        self.why()
    }

    async fn sweep(&self, _prefix: &str, _older_than: Timestamp) -> Result<u64> {
        self.why()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[tokio::test]
    async fn every_call_tells_why() {
        let error = Error::usage("secret_access_key", "can't read /run/s3")
            .next_step("put it there")
            .caused_by("No such file");
        let storage = Unopened::new("offsite", error);
        assert_eq!(storage.name(), "offsite");
        for told in [
            storage.list("").await.unwrap_err(),
            storage.folders("").await.unwrap_err(),
            storage.begin("x").await.err().unwrap(),
            storage.create_new("x", Bytes::new()).await.unwrap_err(),
        ] {
            assert_eq!(told.kind(), ErrorKind::Usage);
            assert_eq!(told.to_string(), "secret_access_key: can't read /run/s3");
            assert_eq!(told.advice(), Some("put it there"));
            assert_eq!(told.causes(), ["No such file"]);
        }
    }
}
