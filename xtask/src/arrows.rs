//! `cargo xtask arrows`: which crate may depend on which, so that nothing points sideways.

use serde_json::Value;

use crate::Outcome;
use crate::program::output;

/// The libraries. All but the first may depend on the first alone, of ours.
pub const LIBRARIES: [&str; 6] =
    [CORE, "backup-compress", "backup-crypto", "backup-files", "backup-pg", "backup-storage"];
const CORE: &str = "backup-core";
/// What stands on all of them.
const PROGRAM: &str = "backup-cli";
/// Crates that only serve development are free to look at everything; nobody may look at them,
/// except in tests.
const DEVELOPMENT: [&str; 4] = ["backup-testkit", "examples", "tests", "xtask"];

/// What the core does not know: terminals, networks, other people's formats.
const NOT_IN_CORE: [&str; 8] =
    ["clap", "indicatif", "hyper", "reqwest", "opendal", "rustls", "pgp", "zstd"];

/// Reads the workspace's dependencies from cargo and names every arrow that should not be.
pub fn check() -> Outcome {
    let text = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let wrong = wrong_arrows(&metadata);
    if wrong.is_empty() {
        println!("arrows: as ARCHITECTURE.md draws them");
        return Ok(());
    }
    Err(format!("arrows:\n  {}", wrong.join("\n  ")))
}

fn drawn() -> impl Iterator<Item = &'static str> {
    LIBRARIES.into_iter().chain([PROGRAM])
}

fn may_depend(name: &str, on: &str) -> bool {
    match name {
        CORE => false,
        PROGRAM => LIBRARIES.contains(&on),
        _ => on == CORE,
    }
}

fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for name in &ours {
        let known = DEVELOPMENT.contains(name) || drawn().any(|drawn| drawn == *name);
        if !known {
            wrong.push(format!("{name} is not in the drawing: add it to xtask/src/arrows.rs"));
        }
    }
    for name in drawn() {
        let Some(package) = packages.iter().find(|p| p["name"] == name) else {
            wrong.push(format!("{name} is in the drawing and not in the workspace"));
            continue;
        };
        for dependency in package["dependencies"].as_array().map_or(&[][..], Vec::as_slice) {
            let to = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let ours = ours.contains(&to) && !may_depend(name, to) && !for_tests;
            let foreign = name == CORE && NOT_IN_CORE.contains(&to);
            if ours || foreign {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(core_needs: &str, kind: Option<&str>) -> Value {
        let packages = drawn().chain(DEVELOPMENT).map(|name| {
            let needs = if name == CORE { core_needs } else { "bytes" };
            json!({"name": name, "dependencies": [{"name": needs, "kind": kind}]})
        });
        json!({ "packages": packages.collect::<Vec<_>>() })
    }

    #[test]
    fn arrows_up_sideways_and_out_are_found() {
        assert!(wrong_arrows(&workspace("bytes", None)).is_empty());
        assert_eq!(wrong_arrows(&workspace("backup-pg", None)), ["backup-core -> backup-pg"]);
        assert_eq!(wrong_arrows(&workspace("backup-testkit", None)).len(), 1);
        assert!(wrong_arrows(&workspace("backup-testkit", Some("dev"))).is_empty());
        assert_eq!(wrong_arrows(&workspace("clap", None)), ["backup-core -> clap"]);
    }

    #[test]
    fn a_crate_that_nobody_drew_is_found() {
        let mut metadata = workspace("bytes", None);
        metadata["packages"][0]["name"] = json!("backup-more");
        assert_eq!(wrong_arrows(&metadata).len(), 2);
    }
}
