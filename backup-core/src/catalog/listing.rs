//! Which backups a storage has, in as few requests as may be.
//!
//! | wanted | asked for | requests on an object store |
//! | --- | --- | --- |
//! | everything | one flat listing | one for each 1,000 objects: some 120 backups of 8 files |
//! | `since` | the years and months of each job, then each month from there on | 2 for each job, 1 for each year, 1 for each month |
//! | `limit` | the same, newest month first, as far as needed | 4 for each job when the newest month suffices |
//! | one id | its folder | 1, and 1 more when the job isn't known |
//!
//! A flat listing needs the fewest requests when everything is wanted: a month of daily backups
//! fills a quarter of a page.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{CLOCK_TOLERANCE, Query};
use crate::layout::{self, BackupId};
use crate::pipeline::within;
use crate::{ObjectInfo, Result, Storage};

/// Longest time a storage may take to answer one question of the catalog.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Most folders of one storage that are listed at the same time.
const LISTINGS_AT_ONCE: usize = 16;

/// The files of a backup's folder, by name.
pub(super) type Files = BTreeMap<String, ObjectInfo>;

/// What one storage holds, by job and id. Folders without a manifest are not in it.
pub(super) type Listing = BTreeMap<(String, BackupId), Files>;

/// Lists the backups that `query` asks for, and perhaps some more.
///
/// # Errors
/// When anything of it could not be listed.
pub(super) async fn list(storage: &dyn Storage, query: &Query<'_>) -> Result<Listing> {
    let mut found = Listing::new();
    if query.wants_everything() {
        let objects = storage.list(query.job.unwrap_or(""));
        sort_in(within(storage.name(), ANSWER_TIMEOUT, objects).await?, &mut found);
        return Ok(found);
    }
    let jobs = match query.job {
        Some(job) => vec![job.to_owned()],
        None => folders(storage, "").await?,
    };
    let jobs = jobs.into_iter().filter(|job| layout::check_job_name(job).is_ok());
    let listings = jobs.map(|job| list_job(storage, job, query));
    let listings: Vec<Listing> =
        stream::iter(listings).buffer_unordered(LISTINGS_AT_ONCE).try_collect().await?;
    Ok(listings.into_iter().flatten().collect())
}

async fn list_job(storage: &dyn Storage, job: String, query: &Query<'_>) -> Result<Listing> {
    let mut found = Listing::new();
    if let Some(id) = query.id {
        list_folder(storage, id.folder(&job), &mut found).await?;
        return Ok(found);
    }
    let since = query.since.map(month_of);
    let years = numbers(folders(storage, &job).await?, 4).into_iter().rev();
    for year in years.take_while(|year| since.is_none_or(|(first, _)| *year >= first)) {
        let months = numbers(folders(storage, &format!("{job}/{year:04}")).await?, 2);
        let wanted = |month: &u32| since.is_none_or(|first| (year, *month) >= first);
        let mut months: Vec<u32> = months.into_iter().filter(wanted).collect();
        while !months.is_empty() {
            let at_once = missing_months(&found, query).min(months.len());
            if at_once == 0 {
                return Ok(found);
            }
            let newest = months.split_off(months.len() - at_once);
            let listings = newest.into_iter().map(|month| {
                let folder = format!("{job}/{year:04}/{month:02}");
                async move {
                    let mut found = Listing::new();
                    list_folder(storage, folder, &mut found).await.map(|()| found)
                }
            });
            let listings: Vec<Listing> =
                stream::iter(listings).buffer_unordered(LISTINGS_AT_ONCE).try_collect().await?;
            found.extend(listings.into_iter().flatten());
        }
    }
    Ok(found)
}

/// How many more months are surely needed, by what the newer ones held; 0 when there is enough.
fn missing_months(found: &Listing, query: &Query<'_>) -> usize {
    let Some(limit) = query.limit else { return LISTINGS_AT_ONCE };
    let horizon = horizon();
    let counted = found.keys().filter(|(_, id)| id.started() <= horizon);
    let mut by_month: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for (_, id) in counted {
        *by_month.entry(month_of(id.started())).or_default() += 1;
    }
    let have: usize = by_month.values().sum();
    let fullest = by_month.values().max().copied().unwrap_or(limit);
    limit.saturating_sub(have).div_ceil(fullest.max(1)).min(LISTINGS_AT_ONCE)
}

/// The point in time up to which an id counts as one of the past.
pub(super) fn horizon() -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(CLOCK_TOLERANCE).unwrap_or(now)
}

async fn list_folder(storage: &dyn Storage, folder: String, found: &mut Listing) -> Result<()> {
    sort_in(within(storage.name(), ANSWER_TIMEOUT, storage.list(&folder)).await?, found);
    Ok(())
}

async fn folders(storage: &dyn Storage, folder: &str) -> Result<Vec<String>> {
    within(storage.name(), ANSWER_TIMEOUT, storage.folders(folder)).await
}

/// Without a manifest it is not a backup: a run that failed or is still going on.
fn sort_in(objects: Vec<ObjectInfo>, found: &mut Listing) {
    let mut folders = Listing::new();
    for object in objects {
        if let Some((job, id, name)) = layout::parse_key(&object.key) {
            let (job, name) = (job.to_owned(), name.to_owned());
            folders.entry((job, id)).or_default().insert(name, object);
        }
    }
    found.extend(folders.into_iter().filter(|(_, files)| files.contains_key(layout::MANIFEST)));
}

/// The folder names that are numbers of so many digits, in order.
fn numbers(names: Vec<String>, digits: usize) -> Vec<u32> {
    let is_number =
        |name: &&String| name.len() == digits && name.bytes().all(|b| b.is_ascii_digit());
    let mut numbers: Vec<u32> =
        names.iter().filter(is_number).filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn month_of(time: Timestamp) -> (u32, u32) {
    let date = time.to_zoned(TimeZone::UTC);
    (u32::try_from(date.year()).unwrap_or(0), u32::try_from(date.month()).unwrap_or(0))
}
