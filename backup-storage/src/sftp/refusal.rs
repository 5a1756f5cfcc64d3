//! What it means when `ssh` doesn't get through: cause, next step, and whether to try again.

use backup_core::{Error, ErrorKind};

use super::login::Login;
use super::session::GARBLED;

/// No connection.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) error: Error,
    /// Whether it may go better in a moment.
    pub(super) again: bool,
}

/// One thing that can be wrong.
struct Cause {
    /// What ssh says then, any of these.
    said: &'static [&'static str],
    kind: ErrorKind,
    again: bool,
    message: &'static str,
    next_step: &'static str,
}

const fn lasting(
    said: &'static [&'static str],
    message: &'static str,
    next_step: &'static str,
) -> Cause {
    Cause { said, kind: ErrorKind::Failed, again: false, message, next_step }
}

const fn passing(
    said: &'static [&'static str],
    message: &'static str,
    next_step: &'static str,
) -> Cause {
    Cause { said, kind: ErrorKind::Failed, again: true, message, next_step }
}

/// What ssh says when nothing that it tried let it in.
const REFUSED: &str = "Permission denied (";

/// The first that fits counts. `{host}` and `{known_as}` are filled in.
const CAUSES: &[Cause] = &[
    Cause {
        said: &[
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "has changed and you have requested strict",
        ],
        kind: ErrorKind::Refused,
        again: false,
        message: "the host key of {host} HAS CHANGED: somebody may be listening in between, or the server was set up anew. Nothing was sent",
        next_step: "ask the server's administrator. Only if the change is known: `ssh-keygen -R '{known_as}'` forgets the old key; then add the new one",
    },
    Cause {
        said: &["host key is known for", "Host key verification failed"],
        kind: ErrorKind::Refused,
        again: false,
        message: "the host key of {host} is not known, so it can't be told from an impostor's",
        next_step: "compare the fingerprint that `ssh-keyscan {scan} | ssh-keygen -lf -` shows with the one the administrator tells, then add the output of `ssh-keyscan {scan}` to ~/.ssh/known_hosts or to the file of the option `known_hosts`",
    },
    lasting(
        &["incorrect passphrase supplied", "bad passphrase"],
        "the passphrase does not open the key",
        "set the secret `passphrase` to that of the file in `identity_file`",
    ),
    lasting(
        &["UNPROTECTED PRIVATE KEY FILE", "bad permissions"],
        "ssh ignores the private key: others may read it",
        "`chmod 600` the file of the option `identity_file`",
    ),
    lasting(
        &["Too many authentication failures"],
        "{host} gave up: too many keys were tried",
        "name the right one in the option `identity_file`",
    ),
    lasting(
        &["ssh_askpass: exec", "askpass: Permission denied"],
        "ssh can't run its askpass program: the folder for temporary files does not allow programs",
        "let TMPDIR be a folder that is not mounted noexec",
    ),
    // After what explains it better.
    lasting(
        &[REFUSED],
        "{host} refuses the login",
        "check user, key and password with `{try}`; the public key belongs into ~/.ssh/authorized_keys there. An encrypted key needs an agent or the secret `passphrase`",
    ),
    passing(
        &["Temporary failure in name resolution"],
        "the name {host} can't be resolved at the moment",
        "check this machine's DNS",
    ),
    lasting(
        &["Could not resolve hostname"],
        "there is no host {host}",
        "check the name in the URL, and this machine's DNS",
    ),
    passing(
        &["Connection refused"],
        "{host} refuses connections",
        "check that its SSH server runs and listens on the port of the URL",
    ),
    passing(
        &["No route to host", "Network is unreachable", "Network unreachable"],
        "there is no route to {host}",
        "check the network, the address and the firewalls in between",
    ),
    passing(
        &[
            "Connection timed out",
            "Operation timed out",
            "timed out during banner",
            "not responding",
        ],
        "{host} does not answer",
        "check the network, the address and the firewalls in between",
    ),
    lasting(
        &["Unable to negotiate with"],
        "{host} and this ssh have no algorithm in common",
        "update the older of the two, or allow the algorithm in ssh_config",
    ),
    lasting(
        &["subsystem request failed"],
        "{host} has no SFTP",
        "the server needs `Subsystem sftp internal-sftp` in its sshd_config",
    ),
    Cause {
        said: &[
            "Bad configuration option",
            "Bad owner or permissions",
            "Can't open user config file",
            "terminating,",
        ],
        kind: ErrorKind::Usage,
        again: false,
        message: "ssh refuses its configuration",
        next_step: "see the cause below; `ssh -G {host}` must work",
    },
    lasting(
        &["stdio forwarding failed", "administratively prohibited"],
        "the jump host does not lead to {host}",
        "it must be allowed to forward (AllowTcpForwarding) and reach the server itself",
    ),
    passing(
        &[
            "kex_exchange_identification",
            "Connection closed",
            "Connection reset",
            "closed by remote host",
            "Broken pipe",
        ],
        "{host} closed the connection",
        "look into its log (MaxStartups, fail2ban, the account's shell); then run again",
    ),
];

/// What `said` by ssh means; `why` is what was seen of the stream.
pub(super) fn explain(stage: &str, login: &Login, said: &str, why: &str) -> NotConnected {
    let host = &login.address.host;
    let words = std::io::Error::other(match said.trim() {
        "" => why.to_owned(),
        said => format!("ssh says: {}", said.replace('\n', "; ").replace('\r', "")),
    });
    if why == GARBLED {
        let error = Error::failed(stage.to_owned(), format!("{host} does not speak SFTP"))
            .next_step(
                "a ~/.bashrc there that prints something spoils it; so does another kind of server",
            )
            .caused_by(words);
        return NotConnected { error, again: false };
    }
    let Some(cause) = CAUSES.iter().find(|cause| cause.said.iter().any(|s| said.contains(s)))
    else {
        let error = Error::failed(stage.to_owned(), format!("can't connect to {host}: {why}"))
            .next_step(filled("see whether `{try}` works", login))
            .caused_by(words);
        return NotConnected { error, again: true };
    };
    let mut next_step = filled(cause.next_step, login);
    if cause.said == [REFUSED] && login.passphrase.is_some() {
        // ssh tells nobody that a passphrase is wrong.
        next_step = format!("check the secret `passphrase` first; then {next_step}");
    }
    let error = Error::new(cause.kind, stage.to_owned(), filled(cause.message, login))
        .next_step(next_step)
        .caused_by(words);
    NotConnected { error, again: cause.again }
}

fn filled(text: &str, login: &Login) -> String {
    let address = &login.address;
    let port = |flag: &str| address.port.map(|port| format!("{flag} {port} ")).unwrap_or_default();
    text.replace("{host}", &address.host)
        .replace("{known_as}", &address.known_as())
        .replace("{scan}", &format!("{}{}", port("-p"), address.host))
        .replace("{try}", &format!("sftp {}{}", port("-P"), address.login()))
}
