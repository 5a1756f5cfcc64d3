//! A certificate authority of one's own and a certificate for this host, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::Result;

use super::cannot;

/// Makes both, and the keys that belong to them.
const SCRIPT: &str = "set -e
key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $key -keyout ca.key -out ca.pem -subj '/CN=authority of a test' -days 2
openssl req $key -keyout server.key -out server.csr -subj '/CN=127.0.0.1'
printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
    -extfile server.ext -out server.pem";

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    /// Who trusts this trusts the server.
    pub authority: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`; they are good for two days, on 127.0.0.1.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = Command::new("sh").args(["-c", SCRIPT]).current_dir(folder).output();
        let made = made.map_err(|e| cannot("no shell for openssl").caused_by(e))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(cannot(format!("openssl made no certificate: {said}")));
        }
        let path = |name: &str| folder.join(name);
        Ok(Self { authority: path("ca.pem"), server: path("server.pem"), key: path("server.key") })
    }
}
