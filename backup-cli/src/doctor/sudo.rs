//! Whether sudo lets this user run a hook without asking for a password.

use std::path::Path;

use tokio::process::Command;

use super::restore::succeeds;

/// Options of sudo that take a value, as a letter and as a word. The value may follow as the next
/// argument, or stand in the same one.
const WITH_VALUE: [(char, &str); 9] = [
    ('C', "close-from"),
    ('D', "chdir"),
    ('g', "group"),
    ('h', "host"),
    ('p', "prompt"),
    ('R', "chroot"),
    ('r', "role"),
    ('T', "command-timeout"),
    ('u', "user"),
];
/// Those of them that decide as whom the command runs.
const WHO: [char; 2] = ['u', 'g'];

/// What a call of sudo says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    /// Never asks for a password.
    is_silent: bool,
    /// User and group, as options.
    who: Vec<String>,
    command: Vec<String>,
}

/// Asks. `None` when it can't be asked; `Err` says what is wrong and what to do.
pub(super) async fn ask(sudo: &Path, arguments: &[String]) -> Option<Result<(), (String, String)>> {
    let call = read(arguments);
    let mut list = Command::new(sudo);
    list.args(["-n", "-l"]).args(&call.who).arg("--").args(&call.command);
    let allowed = succeeds(list).await?;
    if !allowed {
        let (user, group) = (call.value('u'), call.value('g'));
        let user = user.or(group.is_none().then_some("root")).unwrap_or_default();
        let group = group.map(|group| format!(":{group}")).unwrap_or_default();
        let line = call.command.join(" ");
        return Some(Err((
            "sudo does not let this user run it without a password".to_owned(),
            format!("allow it with visudo: USER ALL=({user}{group}) NOPASSWD: {line}"),
        )));
    }
    if !call.is_silent {
        return Some(Err((
            "sudo may ask for a password, and nobody is there to type it".to_owned(),
            "write sudo -n, so that it fails at once instead".to_owned(),
        )));
    }
    Some(Ok(()))
}

impl Call {
    fn value(&self, letter: char) -> Option<&str> {
        let at = self.who.iter().position(|option| *option == format!("-{letter}"))?;
        self.who.get(at + 1).map(String::as_str)
    }
}

/// Reads options as sudo does: up to the first argument that is none, or `--`.
fn read(arguments: &[String]) -> Call {
    let mut call = Call::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            break;
        }
        let (letter, value) = if let Some(word) = argument.strip_prefix("--") {
            let (word, value) = word.split_once('=').map_or((word, None), |(w, v)| (w, Some(v)));
            call.is_silent |= word == "non-interactive";
            let letter = WITH_VALUE.iter().find(|(_, name)| *name == word).map(|(c, _)| *c);
            (letter, value.map(str::to_owned))
        } else if let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty()) {
            let taking = |letter: char| WITH_VALUE.iter().any(|(c, _)| *c == letter);
            let at = letters.find(taking);
            let flags = &letters[..at.unwrap_or(letters.len())];
            call.is_silent |= flags.contains('n');
            let letter = at.and_then(|at| letters[at..].chars().next());
            let value = at.map(|at| letters[at + 1..].to_owned()).filter(|v| !v.is_empty());
            (letter, value)
        } else if argument.contains('=') && !argument.starts_with('=') {
            // A variable for the command.
            continue;
        } else {
            call.command.push(argument.clone());
            break;
        };
        let Some(letter) = letter else { continue };
        let Some(value) = value.or_else(|| rest.next().cloned()) else { continue };
        if WHO.contains(&letter) {
            call.who.extend([format!("-{letter}"), value]);
        }
    }
    call.command.extend(rest.cloned());
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_end_where_the_command_begins() {
        for (line, silent, who) in [
            ("-n systemctl stop app", true, ""),
            ("systemctl stop app", false, ""),
            ("-n -u app systemctl stop app", true, "-u app"),
            ("-nu app systemctl stop app", true, "-u app"),
            ("-uapp systemctl stop app", false, "-u app"),
            ("--user=app --non-interactive systemctl stop app", true, "-u app"),
            ("--user app -g www -- systemctl stop app", false, "-u app -g www"),
            ("-E -H -n -D /srv LANG=C systemctl stop app", true, ""),
            ("-p nope -n systemctl stop app", true, ""),
        ] {
            let call = call(line);
            assert_eq!(call.command.join(" "), "systemctl stop app", "{line}");
            assert_eq!((call.is_silent, call.who.join(" ").as_str()), (silent, who), "{line}");
        }
        // What belongs to the command is the command's.
        let mail = call("-n mail -u app");
        assert_eq!((mail.who.len(), mail.command.join(" ").as_str()), (0, "mail -u app"));
        assert_eq!(call("-n").command, [""; 0]);
    }
}
