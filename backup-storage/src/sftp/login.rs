//! How to reach a server: the command line of `ssh`, which brings its own configuration, agents,
//! jump hosts and known hosts along.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::address::{Address, host_and_port};
use crate::Settings;

/// The program.
pub(super) const SSH: &str = "ssh";
/// How often ssh asks a silent server whether it lives before it gives up.
const ALIVE_CHECKS: u64 = 3;
/// Longest time between two of these questions, in seconds.
const ALIVE_SECONDS: u64 = 15;

/// Options by name that a storage takes.
pub(super) const OPTIONS: [&str; 4] = ["identity_file", "known_hosts", "ssh_config", "jump"];
/// Secrets by name that a storage takes.
pub(super) const SECRETS: [&str; 2] = ["password", "passphrase"];

/// Everything that ssh needs to know.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) address: Address,
    pub(super) identity_file: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) ssh_config: Option<PathBuf>,
    pub(super) jump: Option<Jump>,
    pub(super) password: Option<SecretString>,
    pub(super) passphrase: Option<SecretString>,
    pub(super) ambient: bool,
    pub(super) timeout: Duration,
}

/// A host on the way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    login: String,
    port: Option<u16>,
}

impl Jump {
    /// Takes `[user@]host[:port]` apart.
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('/') {
            return Err("the option jump is no [user@]host[:port]");
        }
        if text.contains(',') {
            return Err("the option jump takes one host; put more than one into ssh_config");
        }
        // The rules of a URL are those that keep it from being taken for options or a shell's.
        let address = Address::parse(&format!("sftp://{text}/jump"))
            .map_err(|_| "the option jump is no [user@]host[:port]")?;
        host_and_port(&address.host)
            .map_err(|_| "the option jump names an address: write a name")?;
        Ok(Self { login: address.login(), port: address.port })
    }
}

impl Login {
    /// What `settings` say about reaching `address`.
    ///
    /// # Errors
    /// What is wrong with an option, in words.
    pub(super) fn new(address: Address, settings: &Settings) -> Result<Self, &'static str> {
        let path = |name: &str| settings.options.get(name).map(PathBuf::from);
        let jump = settings.options.get("jump").map(|text| Jump::parse(text)).transpose()?;
        let login = Self {
            address,
            identity_file: path("identity_file"),
            known_hosts: path("known_hosts"),
            ssh_config: path("ssh_config"),
            jump,
            password: settings.secrets.get("password").cloned(),
            passphrase: settings.secrets.get("passphrase").cloned(),
            ambient: settings.ambient_credentials,
            timeout: settings.request_timeout,
        };
        if login.passphrase.is_some() && login.identity_file.is_none() {
            return Err("a passphrase needs the option identity_file: the key that it opens");
        }
        let strange = |file: &PathBuf| {
            let text = file.to_string_lossy();
            text.contains(['"', '\\']) || text.contains("${") || text.contains(char::is_control)
        };
        if [&login.known_hosts, &login.identity_file].into_iter().flatten().any(strange) {
            return Err("ssh takes no path with a quote, a backslash or ${ in it");
        }
        Ok(login)
    }

    pub(super) fn has_secret(&self) -> bool {
        self.password.is_some() || self.passphrase.is_some()
    }

    /// What `ssh` is called with to reach the server's SFTP; `ciphers` are asked for in this order.
    pub(super) fn arguments(&self, ciphers: Option<&str>) -> Vec<OsString> {
        let mut all = self.common();
        all.extend(options(&self.ways_to_prove()));
        if let Some(ciphers) = ciphers {
            all.extend(["-o".into(), joined("Ciphers=", ciphers)]);
        }
        if let Some(command) = self.through_jump() {
            all.extend(["-o".into(), joined("ProxyCommand=", &command)]);
        }
        all.push("-s".into());
        all.extend(self.target());
        all.push("sftp".into());
        all
    }

    /// What `ssh` is called with to say what it would do: its configuration for the server.
    pub(super) fn arguments_to_explain(&self) -> Vec<OsString> {
        let mut all = self.common();
        all.push("-G".into());
        all.extend(self.target());
        all
    }

    fn target(&self) -> Vec<OsString> {
        let mut all = Vec::new();
        if let Some(port) = self.address.port {
            all.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = &self.address.user {
            all.extend(["-l".into(), user.into()]);
        }
        all.extend(["--".into(), self.address.host.clone().into()]);
        all
    }

    /// What holds for the server and for a jump host alike.
    fn common(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        match &self.ssh_config {
            Some(file) => all.extend(["-F".into(), file.into()]),
            None if !self.ambient => all.extend(["-F".into(), "none".into()]),
            None => {}
        }
        let seconds = self.timeout.as_secs().max(1);
        let alive = (seconds / ALIVE_CHECKS).clamp(1, ALIVE_SECONDS);
        all.extend(options(&[
            "StrictHostKeyChecking=yes",
            &format!("ConnectTimeout={seconds}"),
            &format!("ServerAliveInterval={alive}"),
            &format!("ServerAliveCountMax={ALIVE_CHECKS}"),
            // Nothing but this one channel, and nobody who outlives us.
            "ControlMaster=no",
            "ControlPath=none",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "AddKeysToAgent=no",
            "UpdateHostKeys=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            "EscapeChar=none",
            "LogLevel=ERROR",
        ]));
        if let Some(file) = &self.known_hosts {
            all.extend(["-o".into(), joined("UserKnownHostsFile=", &config_path(file))]);
            all.extend(options(&["GlobalKnownHostsFile=none"]));
        }
        match &self.identity_file {
            Some(file) => {
                all.extend(["-o".into(), joined("IdentityFile=", &config_path(file))]);
                all.extend(options(&["IdentitiesOnly=yes"]));
            }
            None if !self.ambient => {
                all.extend(options(&["IdentityFile=none", "IdentitiesOnly=yes"]));
            }
            None => {}
        }
        if !self.ambient {
            all.extend(options(&["IdentityAgent=none", "GSSAPIAuthentication=no"]));
        }
        all
    }

    /// With which secrets ssh may prove who we are. `BatchMode` would keep it from asking for
    /// any; the askpass program answers here, never a person.
    fn ways_to_prove(&self) -> Vec<&'static str> {
        match (&self.password, &self.passphrase) {
            (None, None) => vec!["BatchMode=yes"],
            (None, Some(_)) => {
                vec!["BatchMode=no", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no"]
            }
            (Some(_), _) => vec!["BatchMode=no", "NumberOfPasswordPrompts=1"],
        }
    }

    /// The command that leads through the jump host. Not `ProxyJump`: its ssh would know neither
    /// our known hosts nor our key.
    fn through_jump(&self) -> Option<String> {
        let jump = self.jump.as_ref()?;
        let mut all = vec![OsString::from(SSH)];
        all.extend(self.common());
        // The password is the server's, not the jump host's.
        all.extend(options(&["PasswordAuthentication=no", "KbdInteractiveAuthentication=no"]));
        if self.passphrase.is_none() {
            all.extend(options(&["BatchMode=yes"]));
        }
        if let Some(port) = jump.port {
            all.extend(["-p".into(), port.to_string().into()]);
        }
        let words: Vec<String> = all.iter().map(|word| quoted(&word.to_string_lossy())).collect();
        // ssh itself puts the server in for %h and %p.
        Some(format!("{} -W '[%h]:%p' -- {}", words.join(" "), quoted(&jump.login)))
    }
}

fn options(all: &[&str]) -> Vec<OsString> {
    all.iter().flat_map(|option| ["-o".into(), OsString::from(option)]).collect()
}

fn joined(option: &str, value: &str) -> OsString {
    OsString::from(format!("{option}{value}"))
}

/// A path as ssh's configuration wants it: in quotes, because blanks separate several; with each
/// `%` doubled, because a single one stands for something else.
fn config_path(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%"))
}

/// A word for the shell that runs a `ProxyCommand`, in which ssh replaces `%` first.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('%', "%%").replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(options: &[(&str, &str)], secrets: &[&str], ambient: bool) -> Login {
        let mut settings = Settings { ambient_credentials: ambient, ..Settings::default() };
        for (name, value) in options {
            settings.options.insert((*name).into(), (*value).into());
        }
        for name in secrets {
            settings.secrets.insert((*name).into(), "hunter2".to_owned().into());
        }
        Login::new(Address::parse("sftp://me@host:2222/a").unwrap(), &settings).unwrap()
    }

    fn line(login: &Login) -> String {
        let words: Vec<_> =
            login.arguments(None).iter().map(|w| w.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn host_keys_are_strict_and_no_secret_is_an_argument() {
        for login in [
            login(&[], &[], true),
            login(&[("identity_file", "/k")], &["password", "passphrase"], true),
            login(&[("jump", "a@b:23")], &["password"], false),
        ] {
            let line = line(&login);
            assert!(line.contains("StrictHostKeyChecking=yes"), "{line}");
            assert!(line.ends_with("-s -p 2222 -l me -- host sftp"), "{line}");
            assert!(!line.contains("hunter2") && !format!("{login:?}").contains("hunter2"));
        }
    }

    #[test]
    fn without_ambient_credentials_nothing_of_the_user_is_read() {
        let line = line(&login(&[], &["password"], false));
        for wanted in ["-F none", "IdentityFile=none", "IdentityAgent=none"] {
            assert!(line.contains(wanted), "{wanted}: {line}");
        }
        assert!(!self::line(&login(&[], &[], true)).contains("IdentityAgent"));
    }

    #[test]
    fn the_way_through_a_jump_host_is_quoted() {
        let login =
            login(&[("jump", "j@gate:24"), ("identity_file", "/a 'b' 100%")], &["password"], true);
        let line = line(&login);
        assert!(line.contains(r#"'IdentityFile="/a '\''b'\'' 100%%%%"'"#), "{line}");
        assert!(line.contains("'-p' '24' -W '[%h]:%p' -- 'j@gate'"), "{line}");
        assert!(line.contains("'PasswordAuthentication=no'"), "{line}");
        for bad in ["", "-oProxyCommand=x", "a b", "a,b", "$(id)", "a/b", "me:pw@a"] {
            assert!(Jump::parse(bad).is_err(), "{bad}");
        }
    }
}
