//! The one way to a service: tries again for a while, times out, and says what went wrong.
//!
//! Everything above (opendal's services, the S3 requests of our own, the fetching of
//! credentials) sends its requests through [`Line`]. So there is one place that decides what is
//! tried again and for how long, and a retry repeats one request, never a half-done operation.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use backup_core::{Error, Result};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use opendal::raw::Operation;
use opendal::{Buffer, HttpBody, HttpTransport};
use secrecy::{ExposeSecret, SecretString};

use super::answer::{NoAnswer, Refusal};
use crate::Settings;

/// Pause before the first repetition; it doubles from there, with jitter.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause before a repetition.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Signatures are valid for 15 minutes, so one request is not repeated longer than this.
const LONGEST_DEADLINE: Duration = Duration::from_secs(12 * 60);
/// How long a request that only cleans up is repeated: a sweep makes up for it.
const CLEANING_DEADLINE: Duration = Duration::from_secs(30);
/// Least time that the last try gets.
const LEAST_TRY: Duration = Duration::from_secs(1);
/// Largest answer that is kept in memory, in bytes: listings take some hundred KiB.
const ANSWER_BYTES: usize = 64 << 20;

/// A request that may have been carried out once before, without us hearing of it. In the
/// extensions of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubtful;

/// A request that only cleans up. In the extensions of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleaning;

/// The way to one service.
#[derive(Clone)]
pub(super) struct Line {
    client: reqwest::Client,
    stage: String,
    secrets: Arc<[SecretString]>,
    request_timeout: Duration,
    retry_deadline: Duration,
}

impl Line {
    /// The way for the storage `name`.
    pub(super) fn new(name: &str, settings: &Settings) -> Result<Self> {
        let stage = format!("storage {name}");
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&stage)?)
            .connect_timeout(settings.request_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("marb-backup/", env!("CARGO_PKG_VERSION")));
        if !settings.ambient_credentials {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            Error::usage(stage.clone(), "the HTTP client could not be set up").caused_by(error)
        })?;
        Ok(Self {
            client,
            stage,
            secrets: settings.secrets.values().cloned().collect(),
            request_timeout: settings.request_timeout,
            retry_deadline: settings.retry_deadline.min(LONGEST_DEADLINE),
        })
    }

    async fn persist(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let cleans = request.extensions().get::<Cleaning>().is_some();
        let longest = if cleans { CLEANING_DEADLINE } else { self.retry_deadline };
        let deadline = Instant::now() + longest.min(self.retry_deadline);
        let (mut pause, mut doubtful) = (FIRST_PAUSE, false);
        loop {
            let failure = match self.attempt(&request, deadline).await {
                Ok(mut response) => {
                    if doubtful {
                        response.extensions_mut().insert(Doubtful);
                    }
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            doubtful |= failure.may_be_done();
            let waits = jittered(pause);
            if !failure.is_temporary() || Instant::now() + waits >= deadline {
                return Err(failure.into_error(doubtful));
            }
            let (stage, method, uri) = (&self.stage, request.method(), request.uri().path());
            tracing::debug!("{stage}: {method} {uri}: {failure}; again in {waits:?}");
            tokio::time::sleep(waits).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        request: &Request<Buffer>,
        deadline: Instant,
    ) -> Result<Response<HttpBody>, Failure> {
        let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_TRY);
        let patience = self.request_timeout.min(left);
        let pace = Pace::new();
        let sending = self.prepare(request, &pace)?.send();
        let response = pace
            .guard(patience, sending)
            .await
            .ok_or(NoAnswer::Silent(patience))?
            .map_err(|error| NoAnswer::of(&error))?;

        let wants_stream = request.extensions().get::<Operation>() == Some(&Operation::Read);
        let (status, uri) = (response.status(), request.uri().clone());
        let mut answer = Response::builder().status(status).extension(uri);
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        let body = if wants_stream && status.is_success() {
            let promised = response
                .headers()
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let frames = response
                .bytes_stream()
                .map_ok(Buffer::from)
                .map_err(|error| NoAnswer::of(&error).into_error());
            HttpBody::new(frames, promised)
        } else {
            let collected = tokio::time::timeout(patience, collect(response)).await;
            let bytes = collected.map_err(|_| NoAnswer::Silent(patience))??;
            let headers = answer.headers_ref();
            if let Some(refusal) = Refusal::of(status, headers, &bytes, &self.secrets) {
                return Err(Failure::Refused(refusal));
            }
            let length = bytes.len() as u64;
            let size = (request.method() != http::Method::HEAD).then_some(length);
            HttpBody::new(stream::iter([Ok(Buffer::from(bytes))]), size)
        };
        answer.body(body).map_err(|error| NoAnswer::Broken(error.to_string()).into())
    }

    fn prepare(
        &self,
        request: &Request<Buffer>,
        pace: &Arc<Pace>,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let url = reqwest::Url::parse(&request.uri().to_string())
            .map_err(|error| NoAnswer::Impossible(format!("the endpoint is no URL: {error}")))?;
        let mut builder =
            self.client.request(request.method().clone(), url).headers(request.headers().clone());
        if !request.body().is_empty() {
            let body = Paced { rest: request.body().clone(), pace: Arc::clone(pace) };
            builder = builder.body(reqwest::Body::wrap(body));
        }
        Ok(builder)
    }
}

impl HttpTransport for Line {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        self.persist(request).await
    }
}

/// Why one try gave nothing.
enum Failure {
    Silent(NoAnswer),
    Refused(Refusal),
}

impl Failure {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Silent(silence) => silence.is_temporary(),
            Self::Refused(refusal) => refusal.is_temporary(),
        }
    }

    fn may_be_done(&self) -> bool {
        match self {
            Self::Silent(silence) => silence.may_be_done(),
            Self::Refused(refusal) => refusal.may_be_done(),
        }
    }

    fn into_error(self, doubtful: bool) -> opendal::Error {
        match self {
            // That nobody listens now says nothing about the try before.
            Self::Silent(silence) if doubtful && !silence.may_be_done() => {
                NoAnswer::Broken(silence.to_string()).into_error()
            }
            Self::Silent(silence) => silence.into_error(),
            Self::Refused(mut refusal) => {
                refusal.doubtful = doubtful;
                refusal.into_error()
            }
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(silence) => silence.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl From<NoAnswer> for Failure {
    fn from(silence: NoAnswer) -> Self {
        Self::Silent(silence)
    }
}

async fn collect(mut response: reqwest::Response) -> Result<Bytes, NoAnswer> {
    let mut all = Vec::new();
    while let Some(frame) = response.chunk().await.map_err(|error| NoAnswer::of(&error))? {
        if all.len() + frame.len() > ANSWER_BYTES {
            return Err(NoAnswer::Broken(format!(
                "its answer is larger than {ANSWER_BYTES} bytes"
            )));
        }
        all.extend_from_slice(&frame);
    }
    Ok(all.into())
}

/// Between half of `pause` and all of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    let random = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + random / 2.0)
}

/// When a body last moved: a large one may take long, as long as it moves.
struct Pace {
    start: Instant,
    moved_at: AtomicU64,
}

impl Pace {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), moved_at: AtomicU64::new(0) })
    }

    fn moves(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at.store(now, Ordering::Relaxed);
    }

    /// Waits for `work`; `None` when nothing moved for the time of `patience`.
    async fn guard<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let moved = Duration::from_millis(self.moved_at.load(Ordering::Relaxed));
            let until = self.start + moved + patience;
            if let Ok(done) = tokio::time::timeout_at(until.into(), &mut work).await {
                return Some(done);
            }
            if Duration::from_millis(self.moved_at.load(Ordering::Relaxed)) == moved {
                return None;
            }
        }
    }
}

/// A request's body that notes when it moves.
struct Paced {
    rest: Buffer,
    pace: Arc<Pace>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.pace.moves();
        Poll::Ready(self.rest.next().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// TLS with ring and the system's root certificates, read once for the process.
fn tls(stage: &str) -> Result<rustls::ClientConfig> {
    static ROOTS: OnceLock<Arc<rustls::RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = rustls::RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::failed(stage.to_owned(), "TLS can't be set up").caused_by(error))?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    Ok(config)
}

/// Replaces every secret in a text that came from outside.
pub(super) fn scrubbed(text: &str, secrets: &[SecretString]) -> String {
    let known = secrets.iter().map(ExposeSecret::expose_secret).filter(|secret| secret.len() > 3);
    known.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}
