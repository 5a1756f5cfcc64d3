//! Which cipher ssh asks for first: AES-GCM, where this machine's processor has AES and nobody
//! chose otherwise.
//!
//! OpenSSH's own first choice, ChaCha20-Poly1305, takes about twice the processor time here. Only
//! the order changes: everything that ssh would have offered is still offered. A `Ciphers` line
//! anywhere in ssh's configuration, or a policy of the system, stands: the list then differs from
//! the built-in one.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::login::SSH;

/// How long ssh may take to tell its built-in list.
const BUILT_IN_TIME: Duration = Duration::from_secs(5);

/// The list to ask for, where ssh's own is to be put in another order; `explained` is what
/// `ssh -G` says of the server.
pub(super) async fn preferred(explained: &str) -> Option<String> {
    let chosen = list(explained)?;
    aes_first(chosen, built_in().await?)
}

/// ssh's own list, from no configuration at all. Asked once for the process.
async fn built_in() -> Option<&'static str> {
    static BUILT_IN: OnceCell<Option<String>> = OnceCell::const_new();
    let asked = BUILT_IN.get_or_init(|| async {
        let mut ssh = Command::new(SSH);
        ssh.args(["-F", "none", "-G", "--", "localhost"]).stdin(Stdio::null()).kill_on_drop(true);
        let told = tokio::time::timeout(BUILT_IN_TIME, ssh.output()).await.ok()?.ok()?;
        list(&String::from_utf8_lossy(&told.stdout)).map(str::to_owned)
    });
    asked.await.as_deref()
}

fn list(explained: &str) -> Option<&str> {
    explained.lines().find_map(|line| line.strip_prefix("ciphers "))
}

fn aes_first(chosen: &str, built_in: &str) -> Option<String> {
    if chosen != built_in {
        return None;
    }
    let (first, rest): (Vec<_>, Vec<_>) =
        chosen.split(',').partition(|cipher| cipher.contains("-gcm@"));
    (!first.is_empty()).then(|| [first, rest].concat().join(","))
}

/// Whether this processor has instructions for AES; without them AES-GCM is the slower one.
pub(super) fn processor_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[allow(unreachable_code, reason = "of processors that are not asked nothing is known")]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com";

    #[test]
    fn only_the_order_changes_and_only_where_nobody_chose() {
        assert_eq!(
            aes_first(OWN, OWN).as_deref(),
            Some("aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr")
        );
        assert_eq!(aes_first("aes128-ctr,aes128-gcm@openssh.com", OWN), None);
        assert_eq!(aes_first("aes128-ctr", "aes128-ctr"), None, "nothing that could come first");
        assert_eq!(list("port 22\nciphers a,b\nmacs c\n"), Some("a,b"));
    }
}
