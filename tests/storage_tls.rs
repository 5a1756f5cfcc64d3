//! Uploads over TLS: with an authority that this host trusts, and with one that it does not.

use std::path::Path;
use std::process::Command;

use backup_testkit::servers::S3Server;

use crate::support::stores::s3_section;
use crate::support::{CLAIMS, Scratch, claims_server, finish};

/// More than a part of an upload when compressed.
const ROWS: u32 = 120_000;

/// Makes `NAME.pem` and `NAME.key` of an authority of one's own.
fn make_authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -keyout {name}.key -out {name}.pem -subj /CN={name} \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ),
    );
}

/// Makes `s3.pem` and `s3.key`, signed by an authority, for this host.
fn make_certificate(folder: &Path, authority: &str) {
    let request = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout s3.key \
                   -out s3.csr -subj /CN=s3";
    openssl(folder, request);
    let names = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n";
    std::fs::write(folder.join("names"), names).unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in s3.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial \
             -days 2 -extfile names -out s3.pem"
        ),
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let words = arguments.split_whitespace();
    let output = Command::new("openssl").args(words).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
}

#[tokio::test]
async fn a_backup_goes_over_tls_and_an_authority_that_is_not_trusted_is_refused() {
    let server = claims_server(15, ROWS).await;
    let scratch = Scratch::of(&server, CLAIMS);
    let folder = scratch.path("tls");
    std::fs::create_dir(&folder).unwrap();
    make_authority(&folder, "ours");
    make_authority(&folder, "theirs");
    make_certificate(&folder, "ours");
    let (certificate, key) = (folder.join("s3.pem"), folder.join("s3.key"));
    let s3 = S3Server::start_over_tls(&certificate, &key).await.unwrap();
    let endpoint = s3.endpoint();
    assert!(endpoint.starts_with("https://"), "{endpoint}");
    let section = s3_section(&s3, &endpoint);
    scratch.edit_config("[encryption]", &format!("{section}[encryption]"));
    scratch.edit_config("storages = ['local']", "storages = ['s3']");
    let trusting = async |arguments: &[&str], authority: &str| {
        let mut command = scratch.command(arguments);
        command.env("SSL_CERT_FILE", folder.join(authority)).env_remove("SSL_CERT_DIR");
        finish(command).await
    };

    trusting(&["backup"], "ours.pem").await.expect(0);
    let listed = trusting(&["list", "--json"], "ours.pem").await.expect(0).json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1);
    trusting(&["verify"], "ours.pem").await.expect(0);

    let refused = trusting(&["backup"], "theirs.pem").await.expect(1);
    for told in [
        &*format!("no secure connection to {endpoint}: invalid peer certificate: "),
        "install the certificate's authority on this host",
    ] {
        assert!(refused.stderr.contains(told), "{told:?}: {refused:#?}");
    }
}
