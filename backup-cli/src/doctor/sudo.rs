//! Whether sudo lets this user run a hook when nobody is there to type a password.

use std::path::Path;

use tokio::process::Command;

use super::restore::{Asked, succeeds};

/// sudo's options that take the next argument as their value.
const WITH_VALUE: [&str; 22] = [
    "-C",
    "-D",
    "-g",
    "-h",
    "-p",
    "-R",
    "-r",
    "-T",
    "-t",
    "-U",
    "-u",
    "--close-from",
    "--chdir",
    "--group",
    "--host",
    "--prompt",
    "--chroot",
    "--role",
    "--command-timeout",
    "--type",
    "--other-user",
    "--user",
];

/// Options that change whom a command runs as, so that whether it is allowed depends on them.
const WHO: [&str; 4] = ["-u", "--user", "-g", "--group"];

/// What stands before the command in a call of sudo.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    /// The options that say whom it runs as, with their values.
    who: Vec<&'a str>,
    /// Whether sudo is told to fail rather than ask.
    never_asks: bool,
    command: &'a [String],
}

impl<'a> Call<'a> {
    fn read(arguments: &'a [String]) -> Self {
        let mut call = Self { who: Vec::new(), never_asks: false, command: &[] };
        let mut rest = arguments;
        while let Some((option, behind)) = rest.split_first() {
            let is_variable = option.contains('=') && !option.starts_with('-');
            if !option.starts_with('-') && !is_variable {
                break;
            }
            rest = behind;
            match option.as_str() {
                "--" => break,
                "-n" | "--non-interactive" => call.never_asks = true,
                with_value if WITH_VALUE.contains(&with_value) => {
                    let Some((value, behind)) = rest.split_first() else { break };
                    rest = behind;
                    if WHO.contains(&with_value) {
                        call.who.extend([with_value, value.as_str()]);
                    }
                }
                joined if is_who_with_value(joined) => call.who.push(joined),
                _ => {}
            }
        }
        call.command = rest;
        call
    }
}

/// `-uroot`, `--user=root`.
fn is_who_with_value(option: &str) -> bool {
    let short = |name: &str| option.len() > 2 && option.starts_with(name);
    short("-u") || short("-g") || option.starts_with("--user=") || option.starts_with("--group=")
}

/// Asks sudo. `None` when it can't be asked; `Err` says what is wrong and what to do.
pub(super) async fn ask(sudo: &Path, arguments: &[String]) -> Asked {
    let call = Call::read(arguments);
    let mut list = Command::new(sudo);
    list.args(["-n", "-l"]).args(&call.who).arg("--").args(call.command);
    let allowed = succeeds(list).await?;
    if !allowed {
        return Some(Err((
            "sudo does not let this user run it without a password".to_owned(),
            format!("allow it with visudo: USER ALL=(ALL) NOPASSWD: {}", call.command.join(" ")),
        )));
    }
    if !call.never_asks {
        return Some(Err((
            "sudo may ask for a password, and nobody is there to type it".to_owned(),
            "write sudo -n, so that it fails at once instead".to_owned(),
        )));
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_variables_and_values_are_told_from_the_command() {
        for (line, who, never_asks, command) in [
            ("systemctl stop x", "", false, "systemctl stop x"),
            ("-n systemctl stop x", "", true, "systemctl stop x"),
            ("-n -u app -g web systemctl -n", "-u app -g web", true, "systemctl -n"),
            ("-uapp --group=web -n -- ls", "-uapp --group=web", true, "ls"),
            ("-p prompt A=b -n C=d ls E=f", "", true, "ls E=f"),
            ("--user app ls", "--user app", false, "ls"),
        ] {
            let arguments = words(line);
            let call = Call::read(&arguments);
            assert_eq!(
                (call.who.join(" "), call.never_asks, call.command.join(" ")),
                (who.to_owned(), never_asks, command.to_owned()),
                "{line}"
            );
        }
        assert_eq!(Call::read(&words("-u")).command, &[] as &[String]);
    }

    /// A program in the place of sudo that notes how it was called and allows one command.
    fn sudo_in(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("sudo");
        let script = format!(
            "#!/bin/sh\necho \"$*\" > {}\ntest \"$*\" = '-n -l -u app -- systemctl stop x'\n",
            folder.join("asked").display()
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn sudo_is_asked_for_the_command_as_the_user_it_runs_as() {
        let folder = tempfile::tempdir().unwrap();
        let sudo = sudo_in(folder.path());
        assert_eq!(ask(&sudo, &words("-n -u app systemctl stop x")).await, Some(Ok(())));
        let may_ask = ask(&sudo, &words("-u app systemctl stop x")).await.unwrap().unwrap_err();
        assert!(may_ask.1.contains("sudo -n"), "{may_ask:?}");
        let refused = ask(&sudo, &words("-n systemctl stop x")).await.unwrap().unwrap_err();
        assert!(refused.1.ends_with("NOPASSWD: systemctl stop x"), "{refused:?}");
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "-n -l -- systemctl stop x\n");
    }
}
