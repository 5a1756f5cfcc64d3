//! Whether the files of a job are there and can be read.

use backup_core::Error;

use super::Diagnosis;
use crate::Deployment;
use crate::config::FilesConfig;

impl Deployment {
    /// Looks for everything that a backup would read, without reading it.
    pub(super) async fn examine_files(
        &self,
        name: &str,
        files: &FilesConfig,
        diagnosis: &mut Diagnosis,
    ) {
        let subject = format!("job {name}");
        let selection = files.selection();
        let looked = tokio::task::spawn_blocking(move || selection.survey()).await;
        let looked = looked
            .unwrap_or_else(|e| Err(Error::failed("files", "nobody could look").caused_by(e)));
        let survey = match looked {
            Ok(survey) => survey,
            Err(error) => return diagnosis.bad(&subject, &error),
        };
        diagnosis.good(&subject, format!("{} files, folders and links", survey.found));
        if !survey.links_outside.is_empty() {
            diagnosis.warning(
                &subject,
                format!(
                    "these links lead to files that are not backed up: {}",
                    survey.links_outside.join(", ")
                ),
                "add what they lead to to `paths`, unless the links alone are meant",
            );
        }
    }
}
