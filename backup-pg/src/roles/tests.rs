//! pg_dumpall against a real server.

use super::*;
use crate::test_server::TestServer;

async fn dump(server: &Server) -> (String, Findings) {
    let mut stream = GlobalsDump::new(server).open().await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    (String::from_utf8(text).unwrap(), stream.findings())
}

#[tokio::test]
async fn roles_come_with_passwords_where_they_may_be_read() {
    let server = TestServer::start();
    let sql = "create role plain login password 'plain-password'; create role \"Ünusual role\";
        create database only_here; revoke connect on database postgres, template1 from public";
    server.execute("postgres", sql).await;

    let (text, findings) = dump(&server.facts(&server.connection("postgres")).await).await;
    assert!(text.contains("PASSWORD 'SCRAM-SHA-256$"));
    assert_eq!(findings.notes, [""; 0]);
    assert_eq!(findings.inventory.roles, ["plain", "postgres", "Ünusual role"]);

    // Not a superuser, and let into one database only: a managed server.
    let plain = server.connection_as("plain", "plain-password", "only_here");
    let (text, findings) = dump(&server.facts(&plain).await).await;
    assert!(text.contains("CREATE ROLE plain") && !text.contains("SCRAM"));
    assert_eq!(findings.notes, [NO_ROLE_PASSWORDS]);
    assert_eq!(findings.inventory.roles.len(), 3);
}

#[test]
fn text_without_its_last_line_is_refused() {
    let whole = "CREATE ROLE a;\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
    assert_eq!(findings(whole.as_bytes(), true).unwrap().inventory.roles, ["a"]);
    let cut = whole.find("complete").unwrap();
    let error = findings(&whole.as_bytes()[..cut], true).unwrap_err();
    assert!(error.message().contains("last line"), "{error}");
}
