//! The table before cron's own parser, and its commands in the shell that cron gives them to.

use super::*;

/// The table without the user's column, which tables of `/etc/cron.d` have and users' have not;
/// and the commands as cron hands them on.
fn as_a_users_own(table: &str, user: &str) -> (String, Vec<String>) {
    let (mut text, mut commands) = (String::new(), Vec::new());
    for line in table.lines() {
        let fields: Vec<&str> = line.splitn(7, ' ').collect();
        if line.starts_with('#') || line.contains("SHELL=") || line.contains("PATH=") {
            text.push_str(&format!("{line}\n"));
            continue;
        }
        assert_eq!(fields[5], user, "{line}");
        text.push_str(&format!("{} {}\n", fields[..5].join(" "), fields[6]));
        assert!(!fields[6].replace("\\%", "").contains('%'), "cron would end it there: {line}");
        commands.push(fields[6].replace("\\%", "%"));
    }
    (text, commands)
}

async fn checked(scratch: &Scratch, table: &str) -> Finished {
    scratch.write("own-table", table);
    let mut check = Command::new("crontab");
    check.arg("-n").arg(scratch.path("own-table"));
    finish(check).await
}

#[tokio::test]
async fn cron_takes_the_table_and_its_shell_the_commands() {
    let scratch = planned();
    let odd = "odd $HOME 100% \"it's\"";
    std::fs::create_dir(scratch.path(odd)).unwrap();
    let config = std::fs::read_to_string(scratch.path("marb-backup.toml")).unwrap();
    let odd_config = format!("{odd}/config.toml");
    scratch.write(&odd_config, &config);
    let more = ["--install", "--user", "backup", "--config", &odd_config];
    schedule(&scratch, "cron", &more).await.expect(0);

    let table = std::fs::read_to_string(scratch.path("cron.d/marb-backup")).unwrap();
    let (own, commands) = as_a_users_own(&table, "backup");
    assert_eq!(commands.len(), TASKS);
    checked(&scratch, &own).await.expect(0);
    let last = own.lines().last().unwrap();
    for wrong in [last.replacen("0 6 1", "60 6 1", 1), last.replacen("0 6 1", "0 6 32", 1)] {
        assert_ne!(wrong, last);
        checked(&scratch, &format!("{own}{wrong}\n")).await.expect(1);
    }

    // There is nothing yet that could be verified; which is said by the right program.
    for command in commands.iter().filter(|command| command.contains(" verify ")) {
        let words = scratch.command(&[]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).current_dir("/");
        for (name, value) in words.as_std().get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        let told = finish(shell).await.expect(5).explains("catalog", "there is no backup latest");
        assert_eq!(told.stdout, "", "{command}");
    }
}

/// Debian's cron has no time zones.
#[tokio::test]
async fn a_zone_that_is_not_the_hosts_is_refused() {
    let scratch = planned();
    scratch.edit_config("[schedules]", "[schedules]\ntime_zone = 'Europe/Berlin'");
    for (host, code) in [("Europe/Berlin", 0), ("America/New_York", 2)] {
        let mut command = scratch.command(&["schedule", "cron"]);
        command.env("TZ", host);
        let told = finish(command).await.expect(code);
        if code != 0 {
            assert_eq!(told.stdout, "");
            told.explains("schedule", "cron runs in the host's time zone (America/New_York)");
        }
    }
}
