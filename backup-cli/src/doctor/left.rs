//! Databases with restored data that nobody needs: what killed restores and drills left, on the
//! servers that are backed up and on the drill's.

use backup_pg::{Server, Working};
use jiff::{SignedDuration, Timestamp};

use super::Diagnosis;
use crate::Deployment;
use crate::drill::PREFIX;

impl Deployment {
    /// Looks at the server that drills go to, where there is one.
    pub(super) async fn examine_drill_server(&self, diagnosis: &mut Diagnosis) {
        let Some(configured) = &self.config().drill.server else { return };
        let subject = "drill server";
        let server = match self.connect(&configured.url, subject).await {
            Ok(server) => server,
            Err(error) => return diagnosis.bad(subject, &error),
        };
        diagnosis.good(subject, format!("{} answers", server.name()));
        examine(subject, &server, diagnosis).await;
        examine_drills(subject, &server, diagnosis).await;
    }
}

/// Names the databases that restores were filling.
pub(super) async fn examine(subject: &str, server: &Server, diagnosis: &mut Diagnosis) {
    let found = match Working::list(server).await {
        Ok(found) => found,
        Err(error) => return diagnosis.bad(subject, &error),
    };
    for one in found {
        let what = match &one.mark {
            Some(mark) => {
                let purpose = &mark.purpose;
                format!("{} of {}, begun {:.0}", purpose.kind, purpose.live, mark.started)
            }
            None => "restore".to_owned(),
        };
        let holds = match one.untouched_since {
            Some(_) => "is empty, made by",
            None => "holds restored data:",
        };
        let fix = one.kept(Timestamp::now(), SignedDuration::ZERO).unwrap_or_else(|| {
            "`marb-backup restore --cleanup` and the next drill on that server drop it once it is a day or two old"
                .to_owned()
        });
        diagnosis.warning(
            subject,
            format!("{} {holds} a {what} that was killed, or still runs", one.name),
            fix,
        );
    }
}

async fn examine_drills(subject: &str, server: &Server, diagnosis: &mut Diagnosis) {
    let sql = format!(
        "select coalesce(json_agg(datname order by datname), '[]') from pg_catalog.pg_database \
         where starts_with(datname, '{PREFIX}')"
    );
    match server.psql().query_json::<Vec<String>>(&sql).await {
        Ok(found) => {
            for name in found {
                diagnosis.warning(
                    subject,
                    format!("{name} holds restored data: a drill that was killed, or still runs"),
                    "the next drill on that server drops it once it is two days old",
                );
            }
        }
        Err(error) => diagnosis.bad(subject, &error),
    }
}
