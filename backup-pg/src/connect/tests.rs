//! Every spelling of a connection, and that none of them shows a secret.

use backup_core::ErrorKind;

use super::*;

/// All parameters, secrets included.
fn all(text: &str) -> Vec<(String, String)> {
    let connection: Connection = text.parse().unwrap();
    let secret = connection.secret.iter().map(|(n, v)| (n.clone(), v.expose_secret().to_owned()));
    let mut all: Vec<_> = connection.public.clone().into_iter().chain(secret).collect();
    all.sort();
    all
}

fn is(text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(all(text), expected, "{text}");
}

fn refused(text: &str) -> String {
    let error = text.parse::<Connection>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
    let said = format!("{error} {error:?} {:?}", error.advice());
    assert!(!said.contains("hunter") && !said.contains("2secret"), "{said}");
    error.to_string() + " | " + error.advice().unwrap_or("")
}

#[test]
fn urls_as_libpq_reads_them() {
    is("postgresql://", &[]);
    is("postgres://localhost", &[("host", "localhost")]);
    is(
        "postgresql:///mydb?host=/run/pg&port=5433",
        &[("dbname", "mydb"), ("host", "/run/pg"), ("port", "5433")],
    );
    is(
        "postgresql://%2Frun%2Fpg:5433/mydb",
        &[("dbname", "mydb"), ("host", "/run/pg"), ("port", "5433")],
    );
    is(
        "postgresql://u:p%40%2f%3A%25+x@h:1/d%20b?sslmode=verify-full&options=-c%20a%3Db",
        &[
            ("dbname", "d b"),
            ("host", "h"),
            ("options", "-c a=b"),
            ("password", "p@/:%+x"),
            ("port", "1"),
            ("sslmode", "verify-full"),
            ("user", "u"),
        ],
    );
    is(
        "postgresql://u@a:1,b,[::1]:3/d?target_session_attrs=read-write",
        &[
            ("dbname", "d"),
            ("host", "a,b,::1"),
            ("port", "1,,3"),
            ("target_session_attrs", "read-write"),
            ("user", "u"),
        ],
    );
    is(
        "  postgresql://h/d?password=x&user=y&from_the_future=1\n",
        &[
            ("dbname", "d"),
            ("from_the_future", "1"),
            ("host", "h"),
            ("password", "x"),
            ("user", "y"),
        ],
    );
    is("postgresql://h/d?ssl=true", &[("dbname", "d"), ("host", "h"), ("sslmode", "require")]);
    is("postgresql://h/one?dbname=two", &[("dbname", "two"), ("host", "h")]);
}

#[test]
fn urls_as_sqlalchemy_writes_them() {
    is(
        "postgresql+asyncpg://u:a/b@h/d?ssl=verify-ca&prepared_statement_cache_size=0&timeout=5",
        &[
            ("connect_timeout", "5"),
            ("dbname", "d"),
            ("host", "h"),
            ("password", "a/b"),
            ("sslmode", "verify-ca"),
            ("user", "u"),
        ],
    );
    is(
        "postgres+psycopg2://u:p@/d?host=a:1&host=b:2",
        &[("dbname", "d"), ("host", "a,b"), ("password", "p"), ("port", "1,2"), ("user", "u")],
    );
    is(
        "postgresql+psycopg://h:5432/d?application_name=a@b",
        &[("application_name", "a@b"), ("dbname", "d"), ("host", "h"), ("port", "5432")],
    );
    is("postgresql+psycopg2:///d?host=/run/pg", &[("dbname", "d"), ("host", "/run/pg")]);
}

#[test]
fn key_value_strings_and_names() {
    is("claims", &[("dbname", "claims")]);
    is(
        r"host = a  port=5 password='it\'s \\ a = b' dbname=x\ y",
        &[("dbname", "x y"), ("host", "a"), ("password", r"it's \ a = b"), ("port", "5")],
    );
    is("host=a options='-c x=y://z'", &[("host", "a"), ("options", "-c x=y://z")]);
    is("host=a password=''", &[("host", "a")]);
    is("service=prod", &[("service", "prod")]);
}

#[test]
fn what_is_no_connection_is_refused_without_repeating_it() {
    assert!(refused("").contains("empty"));
    assert!(refused("mysql://u:hunter2secret@h/d").contains("no PostgreSQL"));
    // A password with special characters that were not encoded.
    assert!(refused("postgresql://u:hunter/2secret@h/d").contains("%2F"));
    assert!(refused("postgresql://u:hunter@2secret@h/d").contains("%40"));
    assert!(refused("postgresql://u:hunter%2secret@h/d").contains("%25"));
    assert!(refused("postgresql://h/d?hunter2secret").contains("%3F"));
    assert!(refused("postgresql://h/d?hunter-2secret=1").contains("no parameter name"));
    assert!(refused("postgresql+asyncpg://h/d?server_settings=hunter").contains("options="));
    assert!(refused("postgresql://h/d?ssl=hunter").contains("sslmode="));
    assert!(refused("host=a password='hunter2secret").contains("closing quote"));
    assert!(refused("host=a hunter2secret").contains("without"));
    assert!(refused("host=a port=hunter").contains("port"));
    assert!(refused("postgresql://u:p%00hunter@h/d").contains("NUL"));
}

#[test]
fn labels_name_the_server_and_no_secret() {
    let label = |text: &str| text.parse::<Connection>().unwrap().label();
    assert_eq!(label("postgresql://u:hunter2@h:1/d"), "h:1/d");
    assert_eq!(label("postgresql://u:hunter2@a,b:2/d"), "a,b:2/d");
    assert_eq!(label("host=a,b port=7 dbname=d"), "a:7,b:7/d");
    assert_eq!(label("host=::1 port=7"), "[::1]:7");
    assert_eq!(label("service=prod"), "service prod");
    assert_eq!(label("claims"), "default server/claims");
    let connection: Connection =
        "postgresql://u:hunter2@h/d?sslpassword=hunter3&new=hunter4".parse().unwrap();
    assert!(connection.brings_secrets());
    let shown = format!("{connection:?}");
    assert!(!shown.contains("hunter") && shown.contains("sslpassword"), "{shown}");
}

#[test]
fn a_misspelt_url_is_no_database_name() {
    for text in ["postgres//u:hunter2@h/d", "u:hunter2@h/d", "h/d"] {
        let error = text.parse::<Connection>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn defaults_do_not_replace_what_was_given() {
    let connection: Connection = "host=a connect_timeout=3".parse().unwrap();
    let same = connection.or_parameter("connect_timeout", "10").unwrap();
    assert_eq!(same.parameter("connect_timeout"), Some("3"));
    let added = same.or_parameter("sslmode", "require").unwrap();
    assert_eq!(added.parameter("sslmode"), Some("require"));
    assert_eq!(added.with_database("o'b").database(), Some("o'b"));
}

#[test]
fn secrets_that_fit_no_service_file_and_colliding_services_are_refused() {
    let command = |text: &str| {
        text.parse::<Connection>().unwrap().command("psql".as_ref()).map(drop).unwrap_err()
    };
    let collision = command("service=prod sslpassword=hunter2");
    assert_eq!(collision.message(), "sslpassword can't be combined with service=");
    let break_in = command("sslpassword='hunter2\nhost=evil'");
    assert!(break_in.message().contains("line break") && !break_in.message().contains("hunter"));
    assert!(command(&format!("sslpassword={}", "x".repeat(901))).message().contains("900"));
}

/// libpq itself is the judge of what is written for it.
#[test]
fn rendered_strings_are_read_back_as_the_same() {
    let nasty = r#"a'b\c "d" = e\\'' ü"#;
    let parameters = BTreeMap::from([("dbname".to_owned(), nasty.to_owned())]);
    let read = conninfo::parse(&conninfo::render(&parameters)).unwrap();
    assert_eq!(read, [("dbname".to_owned(), nasty.to_owned())]);
}
