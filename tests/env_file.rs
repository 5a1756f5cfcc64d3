//! `.env` files reach the connection and the key as data: nothing of a shell happens to them.

use backup_testkit::postgres::PostgresServer;

use crate::support::{CLAIMS, Scratch, claims_server};

/// All that a shell, a URL or a quoting rule would change.
const PASSWORD: &str = r#"p #q"r's=t$HOME\u%40`v`"#;

/// The same as far as it can stand without any quotes.
const BARE_PASSWORD: &str = r#"p#q"r=s$HOME%40`v`"#;

async fn server_with_role() -> PostgresServer {
    let server = claims_server(15, 10).await;
    for (role, password) in [("app", PASSWORD), ("bare", BARE_PASSWORD)] {
        let password = password.replace('\'', "''");
        let sql = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'");
        server.sql("postgres", &sql).await.unwrap();
    }
    server
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// `password='...'` as libpq quotes it.
fn conninfo(server: &PostgresServer) -> String {
    let password = PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    let (host, port) = (server.host(), server.port());
    format!("host={host} port={port} user=app dbname={CLAIMS} password='{password}'")
}

#[tokio::test]
async fn any_value_reaches_the_connection() {
    let server = server_with_role().await;
    let (host, port) = (server.host(), server.port());
    let login = format!("app:{}@{host}:{port}/{CLAIMS}", percent_encoded(PASSWORD));
    let conninfo = conninfo(&server);
    let in_double_quotes = conninfo.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$");
    let bare =
        format!("host={host} port={port} user=bare dbname={CLAIMS} password={BARE_PASSWORD}");
    let files = [
        format!("DATABASE_URL={bare} # comment\n"),
        format!("DATABASE_URL=postgresql+psycopg2://{login}\n"),
        format!("DATABASE_URL=postgresql+asyncpg://{login}?ssl=disable # the application's\n"),
        format!("export DATABASE_URL = 'postgres://{login}?application_name=a b=c#d$e'\n"),
        format!("# =\nOTHER='two\nlines'\nDATABASE_URL=\"{in_double_quotes}\"\n"),
        format!("DATABASE_URL=\"{in_double_quotes}\" # comment\r\nLAST=1"),
    ];
    for file in files {
        let scratch = Scratch::new("");
        scratch.edit_config("state_dir", "env_file = 'app.env'\nstate_dir");
        scratch.edit_config("TEST_DATABASE_URL", "DATABASE_URL");
        scratch.write("app.env", &file);
        println!("{file}");
        scratch.run(&["backup", "--quiet"]).await.expect(0);
        let listed = scratch.run(&["list", "--json"]).await.expect(0).json();
        assert_eq!(listed["backups"][0]["manifest"]["source"]["database"], CLAIMS);
    }
}

/// The environment beats the file.
#[tokio::test]
async fn a_passphrase_from_the_file_is_the_passphrase() {
    let server = server_with_role().await;
    let scratch = Scratch::of(&server, CLAIMS);
    let key = format!("{{ file = '{}' }}", scratch.path("key").display());
    scratch.edit_config(&key, "{ env = 'BACKUP_KEY' }");
    scratch.edit_config("state_dir", "env_file = 'app.env'\nstate_dir");
    scratch.write("app.env", "BACKUP_KEY='pass #\"= $HOME `id` \\x'\n");
    scratch.run(&["backup"]).await.expect(0);

    scratch.write("right", "pass #\"= $HOME `id` \\x\n");
    scratch.write("wrong", "pass #\"= /root `id` \\x\n");
    let verify = async |key: &str| {
        let file = scratch.path(key).display().to_string();
        scratch.run(&["verify", "--passphrase-file", &file]).await.code
    };
    assert_eq!(verify("right").await, 0);
    assert_ne!(verify("wrong").await, 0);
    let mut command = scratch.command(&["verify"]);
    command.env("BACKUP_KEY", "another");
    assert_ne!(crate::support::finish(command).await.code, 0);
}
