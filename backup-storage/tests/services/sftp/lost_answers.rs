//! Answers that are lost at the worst moment: the server has done what it was asked to.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::Creation;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::*;

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
const OPEN: u8 = 3;
const WRITE: u8 = 6;
const REMOVE: u8 = 13;
const RENAME: u8 = 18;
const EXTENDED: u8 = 200;

/// What befalls a request.
enum Fate {
    Passes,
    /// The server doesn't know it.
    Refused,
    /// The server does it, and its answer is lost with the connection.
    Lost,
}

/// A server whose requests, with their kinds and their text, meet a `fate`.
async fn server_of<F>(fate: F) -> SftpServer
where
    F: Fn(u8, &str) -> Fate + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fate = Arc::new(fate);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(relay(client, Arc::clone(&fate)));
        }
    });
    let relayed = format!(
        "ForceCommand bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} 4<&0; cat <&4 >&3 & cat <&3; \
         kill $!'"
    );
    server_with(&relayed).await
}

async fn relay<F: Fn(u8, &str) -> Fate>(client: TcpStream, fate: Arc<F>) {
    let mut server = Command::new(SFTP_SERVER);
    let server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut server = server.spawn().unwrap();
    let (mut to_server, mut from_server) =
        (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    let (mut from_client, mut to_client) = client.into_split();
    let lost_id = std::sync::Mutex::new(None);
    let up = async {
        while let Some(mut packet) = packet(&mut from_client).await {
            let text = String::from_utf8_lossy(&packet[4..packet.len().min(4096)]).into_owned();
            match fate(packet[4], &text) {
                Fate::Passes => {}
                // The first letter of the extension's name.
                Fate::Refused => packet[13] = b'?',
                Fate::Lost => *lost_id.lock().unwrap() = Some(packet[5..9].to_vec()),
            }
            if to_server.write_all(&packet).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        while let Some(packet) = packet(&mut from_server).await {
            if lost_id.lock().unwrap().as_deref() == Some(&packet[5..9])
                || to_client.write_all(&packet).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

/// The next packet, with its length before it.
async fn packet(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut packet = length.to_be_bytes().to_vec();
    packet.resize(4 + length as usize, 0);
    from.read_exact(&mut packet[4..]).await.ok()?;
    Some(packet)
}

/// True once.
fn once(counter: &AtomicUsize) -> bool {
    counter.fetch_add(1, Ordering::SeqCst) == 0
}

fn names_a_file(kind: u8, text: &str) -> bool {
    kind == RENAME || (kind == EXTENDED && text.contains("hardlink@"))
}

/// The file is gone, and an older object of the same size is there: it must not pass for the new.
#[tokio::test]
async fn a_refused_object_is_not_taken_for_published_because_its_file_is_gone() {
    let (renames, removals) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&removals);
    let server = server_of(move |kind, text| match kind {
        EXTENDED if text.contains("posix-rename@") => match once(&renames) {
            true => Fate::Passes,
            false => Fate::Refused,
        },
        REMOVE if text.contains(".partial") && once(&counted) => Fate::Lost,
        _ => Fate::Passes,
    })
    .await;
    let storage = storage(&server);
    let old = random(1, 1000);
    write(&storage, "db/x", &old).await.unwrap();
    write(&storage, "db/x", &random(2, 1000)).await.unwrap_err();
    assert!(removals.load(Ordering::SeqCst) > 1, "the removal was tried again");
    assert_eq!(files(&server.folder()), [server.folder().join("root/db/x")]);
    assert!(read(&storage, "db/x", ByteRange::ALL).await.unwrap() == old);
}

#[tokio::test]
async fn a_claim_is_recognised_although_the_answer_to_a_second_look_is_lost_too() {
    let (named, removals) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&removals);
    let server = server_of(move |kind, text| {
        let removed = kind == REMOVE && text.contains(".partial");
        match (names_a_file(kind, text) && once(&named)) || (removed && once(&counted)) {
            true => Fate::Lost,
            false => Fate::Passes,
        }
    })
    .await;
    let storage = storage(&server);
    let created = storage.create_new("db/claim", "mine".into()).await.unwrap();
    assert_eq!(created, Creation::Created);
    assert!(removals.load(Ordering::SeqCst) > 1, "it was looked for twice");
    assert_eq!(files(&server.folder()), [server.folder().join("root/db/claim")]);
    assert_eq!(storage.create_new("db/claim", "mine".into()).await.unwrap(), Creation::Taken);
}

/// The removal that nobody heard of is what makes the file be gone, not a renaming.
#[tokio::test]
async fn another_ones_claim_is_not_taken_for_our_own() {
    let (writes, removals) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&removals);
    let folder = Arc::new(std::sync::OnceLock::<PathBuf>::new());
    let claims = Arc::clone(&folder);
    let server = server_of(move |kind, text| {
        if kind == WRITE && once(&writes) {
            fs::write(claims.get().unwrap().join("root/db/claim"), "theirs").unwrap();
            return Fate::Lost;
        }
        match kind == REMOVE && text.contains(".partial") && once(&counted) {
            true => Fate::Lost,
            false => Fate::Passes,
        }
    })
    .await;
    folder.set(server.folder()).unwrap();
    let storage = storage(&server);
    let created = storage.create_new("db/claim", "mine".into()).await.unwrap();
    assert_eq!(created, Creation::Taken);
    assert!(removals.load(Ordering::SeqCst) > 1, "it was looked for twice");
    assert_eq!(files(&server.folder()), [server.folder().join("root/db/claim")]);
}

/// Somebody removes the file while it is to get its name, the answer is lost, and an older object
/// of the same size is there.
#[tokio::test]
async fn an_older_object_of_the_same_size_is_not_taken_for_the_new_one() {
    let renames = AtomicUsize::new(0);
    let folder = Arc::new(std::sync::OnceLock::<PathBuf>::new());
    let place = Arc::clone(&folder);
    let server = server_of(move |kind, text| {
        if kind != EXTENDED || !text.contains("posix-rename@") || !once(&renames) {
            return Fate::Passes;
        }
        let unfinished = files(place.get().unwrap()).into_iter();
        unfinished
            .filter(|file| file.extension().is_some())
            .for_each(|f| fs::remove_file(f).unwrap());
        Fate::Lost
    });
    let server = server.await;
    folder.set(server.folder()).unwrap();
    let (storage, target) = (storage(&server), server.folder().join("root/db/x"));
    let old = random(1, 1000);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, &old).unwrap();
    let before = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&target).unwrap().set_modified(before).unwrap();
    let error = write(&storage, "db/x", &random(2, 1000)).await.unwrap_err();
    assert_says(&error, ErrorKind::Failed, "vanished before it could be published", "run again");
    assert!(fs::read(&target).unwrap() == old);
}

/// A file that was made although nobody heard of it does not stay beside the one made instead.
#[tokio::test]
async fn a_begun_file_is_removed_although_the_answer_was_lost() {
    for claims in [false, true] {
        let opened = AtomicUsize::new(0);
        let server = server_of(move |kind, text| {
            match kind == OPEN && text.contains(".partial") && once(&opened) {
                true => Fate::Lost,
                false => Fate::Passes,
            }
        });
        let server = server.await;
        let (storage, data) = (storage(&server), random(4, 1000));
        match claims {
            true => {
                let created = storage.create_new("db/x", data.clone().into()).await.unwrap();
                assert_eq!(created, Creation::Created);
            }
            false => write(&storage, "db/x", &data).await.unwrap(),
        }
        assert!(read(&storage, "db/x", ByteRange::ALL).await.unwrap() == data);
        assert_eq!(files(&server.folder()), [server.folder().join("root/db/x")], "{claims}");
    }
}

/// What was named although nobody heard of it is found.
#[tokio::test]
async fn a_published_object_is_found_although_the_answer_was_lost() {
    let renames = AtomicUsize::new(0);
    let server = server_of(move |kind, text| {
        match kind == EXTENDED && text.contains("posix-rename@") && once(&renames) {
            true => Fate::Lost,
            false => Fate::Passes,
        }
    });
    let server = server.await;
    let (storage, data) = (storage(&server), random(3, 1000));
    write(&storage, "db/x", &data).await.unwrap();
    assert!(read(&storage, "db/x", ByteRange::ALL).await.unwrap() == data);
    assert_eq!(files(&server.folder()), [server.folder().join("root/db/x")]);
}
