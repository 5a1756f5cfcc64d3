//! The place that an `sftp://` or `scp://` URL names.

use crate::percent::percent_decode;

/// `sftp://user@host:port/absolute/path`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) user: Option<String>,
    /// A name, an address, or an alias of the user's `ssh_config`.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Absolute, without a slash at its end.
    pub(super) root: String,
}

impl Address {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold nothing of the URL: it may carry a password.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let scheme_and_rest = url.split_once("://");
        let rest = match scheme_and_rest {
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case("sftp") || scheme.eq_ignore_ascii_case("scp") =>
            {
                rest
            }
            _ => return Err("the URL is no sftp:// nor scp:// URL"),
        };
        let Some((authority, path)) = rest.split_once('/') else {
            return Err("the URL has no path");
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err("the URL has a password in it"),
            Some((user, place)) => (Some(checked_user(user)?), place),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        Ok(Self { user, host, port, root: root(path)? })
    }

    /// `user@host`, as people write it.
    pub(super) fn login(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    /// The host as a line of `known_hosts` names it.
    pub(super) fn known_as(&self) -> String {
        match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        }
    }
}

fn checked_user(user: &str) -> Result<String, &'static str> {
    let user = decoded(user).ok_or("the URL's user has a wrong % in it")?;
    // What a shell, or ssh's own `%r`, could take for more than a name.
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+' | '\\');
    if user.is_empty() || user.starts_with('-') || !user.chars().all(fine) {
        return Err("the URL's user is no name of a user");
    }
    Ok(user)
}

/// Takes `host`, `host:port`, `[v6]` or `[v6]:port` apart.
pub(super) fn host_and_port(place: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match place.strip_prefix('[').and_then(|p| p.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, Some("")),
        },
    };
    // A host that starts with a dash would be an option of ssh.
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '%');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(fine) {
        return Err("the URL has no good host");
    }
    let port = match port {
        None => return Err("the URL has no good port"),
        Some("") => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("the URL has no good port"),
        },
    };
    Ok((host.to_owned(), port))
}

fn root(path: &str) -> Result<String, &'static str> {
    if path.contains(['?', '#']) {
        return Err("the URL has a query or a fragment: write ? as %3F and # as %23");
    }
    let path = decoded(path).ok_or("the URL's path has a wrong % in it, or is no UTF-8")?;
    if path.chars().any(char::is_control) {
        return Err("the URL's path has a control character in it");
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.is_empty() {
        return Err("the URL names no folder: backups need one of their own");
    }
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err("the URL's path has . or .. in it");
    }
    Ok(format!("/{}", segments.join("/")))
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent_decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(user: Option<&str>, host: &str, port: Option<u16>, root: &str) -> Address {
        Address { user: user.map(Into::into), host: host.into(), port, root: root.into() }
    }

    #[test]
    fn good_urls() {
        for (url, wanted) in [
            ("sftp://me@host:2222/a/b", address(Some("me"), "host", Some(2222), "/a/b")),
            ("SCP://host/a/", address(None, "host", None, "/a")),
            ("sftp://a.b%2Bc@[::1]:22/x", address(Some("a.b+c"), "::1", Some(22), "/x")),
            ("sftp://[fe80::1%eth0]/x", address(None, "fe80::1%eth0", None, "/x")),
            ("sftp://h//my%20b/%C3%BC%23", address(None, "h", None, "/my b/ü#")),
            (
                "sftp://u123@u123.your-box.de:23/b",
                address(Some("u123"), "u123.your-box.de", Some(23), "/b"),
            ),
        ] {
            assert_eq!(Address::parse(url), Ok(wanted), "{url}");
        }
    }

    #[test]
    fn bad_urls_say_why_without_repeating_them() {
        for (url, why) in [
            ("s3://bucket/x", "no sftp://"),
            ("/var/backups", "no sftp://"),
            ("sftp://host", "no path"),
            ("sftp://host/", "names no folder"),
            ("sftp://me:hunter2@host/a", "password in it"),
            ("sftp://me@-oProxyCommand=x/a", "no good host"),
            ("sftp:///a", "no good host"),
            ("sftp://ho st/a", "no good host"),
            ("sftp://host$(id)/a", "no good host"),
            ("sftp://-l@host/a", "no name of a user"),
            ("sftp://@host/a", "no name of a user"),
            ("sftp://a`b@host/a", "no name of a user"),
            ("sftp://host:0/a", "no good port"),
            ("sftp://host:x/a", "no good port"),
            ("sftp://[::1]x/a", "no good port"),
            ("sftp://host/a/../b", "has . or .."),
            ("sftp://host/a?b=c", "query"),
            ("sftp://host/a%zz", "wrong %"),
            ("sftp://host/a%00b", "control"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn known_hosts_names_a_port_only_where_it_is_another() {
        assert_eq!(Address::parse("sftp://h:22/a").unwrap().known_as(), "h");
        assert_eq!(Address::parse("sftp://h:23/a").unwrap().known_as(), "[h]:23");
    }
}
