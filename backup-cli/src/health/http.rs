//! GET requests until the answer is 2xx, by http or https.

use std::time::{Duration, Instant};

use backup_core::pipeline::Cancel;
use backup_core::{Error, Result};

use super::STAGE;

/// Pause before the next request.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the application tells whether it works, and how long it may take.
#[derive(Clone)]
pub(crate) struct Health {
    url: reqwest::Url,
    limit: Duration,
    client: reqwest::Client,
}

impl Health {
    /// Prepares the requests. Neither a proxy nor a redirection is followed: the application
    /// itself is to answer, not a login page.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(url: &str, limit: Duration) -> Result<Self> {
        let url = reqwest::Url::parse(url).map_err(|e| {
            Error::usage("config", "[restore]: `health.url` is no URL")
                .caused_by(e)
                .next_step("write health = { url = \"http://localhost:8000/health\" }")
        })?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("marb-backup/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|e| {
                Error::failed(STAGE, "the HTTP client could not be set up").caused_by(e)
            })?;
        Ok(Self { url, limit, client })
    }

    /// The address without what may be secret: login, query and fragment.
    pub fn label(&self) -> String {
        let mut url = self.url.clone();
        // Both fail only for URLs that can't have them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    /// Asks again and again until the answer is 2xx.
    ///
    /// # Errors
    /// When it isn't in time, with the last answer; or when somebody asks for a stop.
    pub async fn wait(&self, cancel: &Cancel) -> Result<()> {
        cancel.guard(self.poll()).await
    }

    async fn poll(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            let answer = match self.ask(left.min(REQUEST_TIMEOUT)).await {
                Ok(()) => return Ok(()),
                Err(answer) => answer,
            };
            tracing::debug!("health check of {}: {answer}", self.label());
            if started.elapsed() + PAUSE >= self.limit {
                return Err(self.unhealthy(&answer));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self, limit: Duration) -> Result<(), String> {
        let request = self.client.get(self.url.clone()).timeout(limit).send();
        match request.await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status())),
            Err(error) => Err(explain(&error)),
        }
    }

    fn unhealthy(&self, answer: &str) -> Error {
        let (url, limit) = (self.label(), self.limit.as_secs_f64());
        Error::failed(STAGE, format!("{url} did not answer 2xx within {limit} s: {answer}"))
            .next_step("look into the application's log; raise health.timeout if it needs longer")
    }
}

/// The innermost cause, without the URL that the outer ones repeat.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer came".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// TLS with ring and the system's root certificates.
fn tls() -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::failed(STAGE, "TLS can't be set up").caused_by(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives these answers, one to a request, the last one for good.
    async fn server(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for at in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answers[at.min(answers.len() - 1)];
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        port
    }

    fn health(url: &str, seconds: f64) -> Health {
        Health::new(url, Duration::from_secs_f64(seconds)).unwrap()
    }

    #[tokio::test]
    async fn it_waits_until_the_application_is_well() {
        let port = server(&["503 Starting", "302 Found\r\nlocation: /", "204 No Content"]).await;
        let url = format!("http://127.0.0.1:{port}/health");
        health(&url, 20.0).wait(&Cancel::default()).await.unwrap();
    }

    #[tokio::test]
    async fn who_never_gets_well_is_named_without_secrets() {
        let port = server(&["500 Broken"]).await;
        let url = format!("http://user:hunter2@127.0.0.1:{port}/health?token=hunter2");
        let error = health(&url, 0.6).wait(&Cancel::default()).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("500") && text.contains("/health did not answer 2xx"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn nobody_there_and_a_stop_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Accepts by the kernel's backlog, and never answers.
        let silent = health(&format!("http://127.0.0.1:{port}/"), 0.5);
        let error = silent.wait(&Cancel::default()).await.unwrap_err();
        assert!(error.message().contains("no answer came"), "{error}");
        drop(listener);
        let error = silent.wait(&Cancel::default()).await.unwrap_err();
        assert!(error.message().contains("refused"), "{error}");
        let cancel = Cancel::default();
        cancel.interrupt("interrupted by SIGINT");
        let error = silent.wait(&cancel).await.unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::Interrupted);
    }

    /// A real server with a certificate that nobody signed: TLS speaks, and refuses it.
    #[tokio::test]
    async fn https_checks_the_certificate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let (key, cert) = (folder.path().join("key"), folder.path().join("cert"));
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj"])
            .args(["/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut server = std::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept", &port.to_string(), "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&cert)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let error = health(&format!("https://localhost:{port}/"), 3.0)
            .wait(&Cancel::default())
            .await
            .unwrap_err();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(error.message().contains("certificate"), "{error}");
    }
}
