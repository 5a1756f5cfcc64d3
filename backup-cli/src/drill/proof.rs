//! The record of a drill that is kept beside the backup.

use backup_core::pipeline::Context;
use backup_core::{
    CatalogEntry, DRILL_PROOF_FORMAT, DrillProof, RowProof, Storage, store_drill_proof,
};
use std::sync::Arc;

use super::report::{DrillReport, Outcome, StoredProof, Verdict};
use crate::Deployment;

impl Deployment {
    /// Stores the proof in every storage that holds the backup. What could not be told proves
    /// nothing and is not stored.
    pub(super) async fn keep_proof(
        &self,
        entry: &CatalogEntry,
        report: &mut DrillReport,
        context: &Context,
    ) {
        if report.verdict == Verdict::NotProven {
            return;
        }
        context.step("storing the proof");
        let proof = proof(report);
        let file = proof.file_name();
        let open = match self.readable_storages().await {
            Ok((open, _)) => open,
            Err(error) => {
                context.warn(&format!("the proof can't be stored: {error}"));
                Vec::new()
            }
        };
        let holds = |storage: &Arc<dyn Storage>| {
            entry.copies.iter().any(|copy| copy.storage == storage.name())
        };
        let holding: Vec<Arc<dyn Storage>> = open.into_iter().filter(holds).collect();
        let stored = store_drill_proof(entry, &holding, &proof).await;
        for copy in &entry.copies {
            let result = stored.iter().find(|(storage, _)| *storage == copy.storage);
            let error = match result {
                Some((_, Ok(()))) => None,
                Some((_, Err(error))) => Some(error.to_string()),
                None => Some("the storage can't be opened".to_owned()),
            };
            if let Some(error) = &error {
                context.warn(&format!("the proof can't be stored in {}: {error}", copy.storage));
            }
            let (storage, file) = (copy.storage.clone(), file.clone());
            report.proofs.push(StoredProof { storage, file, error });
        }
    }
}

fn proof(report: &DrillReport) -> DrillProof {
    let times = &report.times;
    let mut problems: Vec<String> =
        report.problems.iter().map(|problem| problem.public.clone()).collect();
    problems.dedup();
    DrillProof {
        format: DRILL_PROOF_FORMAT,
        kind: "drill".to_owned(),
        backup: report.backup.id.clone(),
        storage: report.backup.read_from.clone(),
        started: report.started,
        finished: report.finished,
        tool: report.tool.clone(),
        host: report.host.clone(),
        passed: report.verdict == Verdict::Passed,
        problems,
        server: format!("PostgreSQL {}", report.place.server_version),
        throwaway: report.place.throwaway,
        rows: row_proof(report),
        schema_compared: report.schema.not_compared.is_none(),
        checks: report.checks_run() as u64,
        restore_seconds: times.restore.as_secs_f64(),
        waiting_seconds: times.waiting.as_secs_f64(),
        compare_seconds: (times.compare + times.checks).as_secs_f64(),
    }
}

/// How much is proven about the rows. Tables that have none in any backup don't count.
fn row_proof(report: &DrillReport) -> RowProof {
    let with_rows = || report.tables.iter().filter(|table| table.rows.is_some());
    let compared = |outcome: &Outcome| !matches!(outcome, Outcome::NotCompared(_));
    let exact = with_rows().filter(|table| compared(&table.content)).count();
    let counted = with_rows().filter(|table| compared(&table.count)).count();
    match (exact, counted, with_rows().count()) {
        (exact, _, all) if exact == all && !report.tables.is_empty() => RowProof::Exact,
        (1.., _, _) => RowProof::Mostly,
        (0, 1.., _) => RowProof::Counted,
        _ => RowProof::NotCompared,
    }
}
