//! An S3 that is reached by TLS, as every real one is: with an authority that is trusted, and
//! without.

use backup_testkit::servers::S3Server;

use crate::support::stores::s3_section;
use crate::support::{CLAIMS, Scratch, claims_digest, claims_server, finish, target_file};

/// Several parts of an upload, so that connections are used again.
const ROWS: u32 = 120_000;

#[tokio::test]
async fn a_backup_goes_out_and_comes_back_by_tls() {
    let (server, s3) = tokio::join!(claims_server(15, ROWS), S3Server::start());
    let s3 = s3.unwrap();
    let scratch = Scratch::of(&server, CLAIMS);
    let section = s3_section(&s3, &s3.https_endpoint());
    scratch.edit_config("[encryption]", &format!("{section}[encryption]"));
    scratch.edit_config("storages = ['local']", "storages = ['s3']");
    let trusting = |arguments: &[&str]| {
        let mut command = scratch.command(arguments);
        command.env("SSL_CERT_FILE", s3.authority());
        finish(command)
    };

    // Nobody vouches for it: nothing is sent.
    let refused = scratch.run(&["backup"]).await.expect(1);
    assert!(refused.stderr.contains("certificate"), "{refused:#?}");
    assert!(refused.stderr.contains("install the certificate's authority"), "{refused:#?}");
    assert_eq!(
        trusting(&["list", "--json"]).await.expect(0).json()["backups"],
        serde_json::json!([])
    );

    trusting(&["backup"]).await.expect(0);
    trusting(&["verify", "latest"]).await.expect(0);
    let to = target_file(&scratch, &server, "by_tls");
    trusting(&["restore", "latest", "--to", &to]).await.expect(0);
    assert_eq!(claims_digest(&server, "by_tls").await, claims_digest(&server, CLAIMS).await);
}
