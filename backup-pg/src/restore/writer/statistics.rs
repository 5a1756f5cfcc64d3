//! Statistics for the planner, gathered by several sessions.

use serde::Deserialize;

use crate::Psql;
use crate::sql::quote_ident;

/// Everything that ANALYZE takes, with its bytes. Partitions come with the table that they are of.
const RELATIONS: &str = "
select coalesce(json_agg(json_build_object(
    'schema', n.nspname, 'name', c.relname, 'bytes', pg_catalog.pg_relation_size(c.oid))), '[]')
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm', 'p') and not c.relispartition and c.relpersistence <> 't'";

/// Counting the rows of a table takes so many hundredths of the time that ANALYZE takes.
const COUNTING_PERCENT: u64 = 65;

/// Relations in one statement, at most.
const RELATIONS_AT_ONCE: usize = 500;

#[derive(Debug, Clone, Deserialize)]
struct Relation {
    schema: String,
    name: String,
    bytes: u64,
}

/// What each of `jobs` sessions is to run, so that all end at about the same time. The first also
/// counts all rows before. `whole` does everything in one statement: for when nobody can tell what
/// there is.
pub(super) async fn shares(psql: &Psql, jobs: usize, whole: String) -> Vec<String> {
    match psql.query_json::<Vec<Relation>>(RELATIONS).await {
        Ok(relations) => divide(relations, jobs).iter().map(|share| statements(share)).collect(),
        Err(_) => vec![whole],
    }
}

/// The largest first, each to whom has the least to do.
fn divide(mut relations: Vec<Relation>, jobs: usize) -> Vec<Vec<Relation>> {
    relations.sort_by_key(|relation| std::cmp::Reverse(relation.bytes));
    let counting = relations.iter().map(|relation| relation.bytes).sum::<u64>() / 100;
    let mut shares = vec![(0, Vec::new()); jobs.max(1)];
    shares[0].0 = counting * COUNTING_PERCENT;
    for relation in relations {
        if let Some(share) = shares.iter_mut().min_by_key(|(load, _)| *load) {
            // Empty ones take some time, too.
            share.0 += relation.bytes.max(1);
            share.1.push(relation);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

fn statements(share: &[Relation]) -> String {
    let name = |relation: &Relation| {
        format!("{}.{}", quote_ident(&relation.schema), quote_ident(&relation.name))
    };
    let some = |some: &[Relation]| {
        format!("ANALYZE {};\n", some.iter().map(name).collect::<Vec<_>>().join(", "))
    };
    share.chunks(RELATIONS_AT_ONCE).map(some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_about_as_much_to_do() {
        let relation =
            |name: &str, bytes| Relation { schema: "s".to_owned(), name: name.to_owned(), bytes };
        let all =
            || vec![relation("a", 100), relation("B", 400), relation("c", 300), relation("d", 0)];
        let names = |share: &Vec<Relation>| {
            share.iter().map(|relation| relation.name.as_str()).collect::<String>()
        };
        // The first has counted 800 bytes before, which is like 520 of ANALYZE.
        let two = divide(all(), 2);
        assert_eq!((names(&two[0]).as_str(), names(&two[1]).as_str()), ("ad", "Bc"));
        let one = divide(all(), 1);
        assert_eq!(names(&one[0]), "Bcad");
        assert_eq!(divide(all(), 9).iter().map(Vec::len).sum::<usize>(), 4);
        assert_eq!(statements(&two[1]), "ANALYZE \"s\".\"B\", \"s\".\"c\";\n");
        assert_eq!(statements(&[]), "");
    }
}
