//! Each fault, seen on the wire by plain sockets on both sides of the proxy.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::*;
use crate::random;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(300);

/// What came over a connection, then an orderly end or the kind of failure.
type Seen = (Vec<u8>, Result<(), ErrorKind>);

fn read_to_end(stream: &mut TcpStream) -> Seen {
    let (mut all, mut chunk) = (Vec::new(), [0; 5000]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, Ok(())),
            Ok(read) => all.extend(&chunk[..read]),
            Err(e) => return (all, Err(e.kind())),
        }
    }
}

/// A server that does `act` with each connection; what that gives arrives here.
fn server<T: Send + 'static>(act: fn(&mut TcpStream) -> T) -> (SocketAddr, Receiver<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || sender.send(act(&mut stream.unwrap())));
        }
    });
    (address, seen)
}

/// Reads all, answers how many bytes that were, and reports what it saw.
fn counting() -> (SocketAddr, Receiver<Seen>) {
    server(|stream| {
        let seen = read_to_end(stream);
        stream.write_all(seen.0.len().to_string().as_bytes()).ok();
        seen
    })
}

/// Sends 200,000 bytes, [`sent`], ends, and reads what there is to read.
fn sending() -> (SocketAddr, Receiver<Seen>) {
    server(|stream| {
        stream.write_all(&sent()).and_then(|()| stream.shutdown(Shutdown::Write)).ok();
        read_to_end(stream)
    })
}

fn echoing() -> (SocketAddr, Receiver<()>) {
    server(|stream| {
        let mut reader = stream.try_clone().unwrap();
        std::io::copy(&mut reader, stream).ok();
        stream.shutdown(Shutdown::Write).ok();
    })
}

fn sent() -> Vec<u8> {
    random(1, 200_000)
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect_timeout(&proxy.address(), SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends `data`, ends, and reads the answer. A reset shows in whatever call comes next: the
/// connect, the write or the read.
fn ask(proxy: &FaultProxy, data: &[u8]) -> Seen {
    let mut stream = match TcpStream::connect_timeout(&proxy.address(), SOON) {
        Ok(stream) => stream,
        Err(e) => return (Vec::new(), Err(e.kind())),
    };
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let data = data.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&data).and_then(|()| writer.shutdown(Shutdown::Write))
    });
    let (came, end) = read_to_end(&mut stream);
    let written = writing.join().unwrap().map_err(|_| ErrorKind::ConnectionReset);
    (came, end.and(written))
}

#[test]
fn what_passes_is_what_was_sent_and_counted() {
    let (address, _) = echoing();
    let proxy = FaultProxy::start(address, Plan::pass()).unwrap();
    let data = random(2, 3_000_000);
    assert!(ask(&proxy, &data) == (data, Ok(())));
    assert_eq!((proxy.bytes(Direction::Up), proxy.bytes(Direction::Down)), (3_000_000, 3_000_000));
    assert_eq!((proxy.connections(), proxy.strikes()), (1, 0));
}

#[test]
fn a_reset_reaches_both_ends_once() {
    let (address, seen) = counting();
    let plan = Plan::after_bytes(70_001, Direction::Up, Fault::Reset);
    let proxy = FaultProxy::start(address, plan).unwrap();
    assert_eq!(ask(&proxy, &sent()).1, Err(ErrorKind::ConnectionReset));
    let (came, end) = seen.recv_timeout(SOON).unwrap();
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(came.len() <= 70_001 && came == sent()[..came.len()], "{}", came.len());
    assert_eq!((proxy.bytes(Direction::Up), proxy.strikes()), (70_001, 1));

    assert_eq!(ask(&proxy, &sent()), (b"200000".to_vec(), Ok(())));
    assert!(seen.recv_timeout(SOON).unwrap() == (sent(), Ok(())));
    assert_eq!((proxy.connections(), proxy.strikes()), (2, 1));
}

#[test]
fn truncation_is_an_orderly_end_after_the_exact_byte() {
    let (address, seen) = counting();
    let plan = Plan::after_bytes(70_001, Direction::Up, Fault::Truncate);
    let proxy = FaultProxy::start(address, plan).unwrap();
    assert_eq!(ask(&proxy, &sent()), (Vec::new(), Ok(())));
    assert!(seen.recv_timeout(SOON).unwrap() == (sent()[..70_001].to_vec(), Ok(())));

    let (address, seen) = sending();
    let plan = Plan::after_bytes(1, Direction::Down, Fault::Truncate);
    let proxy = FaultProxy::start(address, plan).unwrap();
    assert_eq!(ask(&proxy, b""), (sent()[..1].to_vec(), Ok(())));
    assert_eq!(seen.recv_timeout(SOON).unwrap(), (Vec::new(), Ok(())));
}

#[test]
fn a_stall_lasts_as_long_as_it_should() {
    let (address, _) = sending();
    let plan = Plan::after_bytes(70_001, Direction::Down, Fault::Stall(Some(MOMENT)));
    let proxy = FaultProxy::start(address, plan).unwrap();
    let start = Instant::now();
    assert!(ask(&proxy, b"") == (sent(), Ok(())));
    assert!((MOMENT..SOON).contains(&start.elapsed()), "{:?}", start.elapsed());
    let start = Instant::now();
    assert!(ask(&proxy, b"") == (sent(), Ok(())));
    assert!(start.elapsed() < MOMENT, "once: {:?}", start.elapsed());
}

#[test]
fn a_stall_without_end_holds_both_ways_until_the_plan_changes() {
    let (address, _) = echoing();
    let plan = Plan::after_bytes(70_001, Direction::Down, Fault::Stall(None));
    let proxy = FaultProxy::start(address, plan).unwrap();
    let mut stream = connect(&proxy);
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    stream.write_all(&sent()[..100_000]).unwrap();
    let (mut came, end) = read_to_end(&mut stream);
    assert_eq!((came.len(), end), (70_001, Err(ErrorKind::WouldBlock)));
    let passed_up = proxy.bytes(Direction::Up);
    stream.write_all(&sent()[100_000..]).unwrap();
    std::thread::sleep(MOMENT);
    assert_eq!(proxy.bytes(Direction::Up), passed_up);
    // Another connection is none the worse.
    assert_eq!(ask(&proxy, b"hello"), (b"hello".to_vec(), Ok(())));

    proxy.set_plan(Plan::pass()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (rest, end) = read_to_end(&mut stream);
    came.extend(rest);
    assert!(came == sent() && end.is_ok());
    assert_eq!(proxy.strikes(), 1);
}

#[test]
fn a_delay_is_paid_by_every_later_chunk() {
    let (address, _) = sending();
    let delay = Duration::from_millis(30);
    let plan = Plan::after_bytes(0, Direction::Down, Fault::Delay(delay)).for_ever();
    let proxy = FaultProxy::start(address, plan).unwrap();
    let start = Instant::now();
    assert!(ask(&proxy, b"") == (sent(), Ok(())));
    let chunks = 200_000_u32.div_ceil(16 * 1024);
    assert!((delay * chunks..SOON).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(proxy.strikes(), 1);
}

#[test]
fn a_refusal_is_one_and_ends() {
    let (address, _) = echoing();
    let proxy = FaultProxy::start(address, Plan::refuse()).unwrap();
    let refused = || TcpStream::connect_timeout(&proxy.address(), SOON).unwrap_err().kind();
    assert_eq!(refused(), ErrorKind::ConnectionRefused);
    proxy.set_plan(Plan::pass()).unwrap();
    let mut open = connect(&proxy);
    open.write_all(b"a").unwrap();
    open.read_exact(&mut [0]).unwrap();
    proxy.set_plan(Plan::refuse()).unwrap();
    assert_eq!(refused(), ErrorKind::ConnectionRefused);
    open.write_all(b"b").unwrap();
    open.read_exact(&mut [0]).unwrap();
    proxy.set_plan(Plan::pass()).unwrap();
    assert_eq!(ask(&proxy, b"hello"), (b"hello".to_vec(), Ok(())));
}

#[cfg(target_os = "linux")]
#[test]
fn no_answer_is_what_only_a_deadline_ends() {
    let (address, _) = echoing();
    let proxy = FaultProxy::start(address, Plan::unanswered()).unwrap();
    for _ in 0..3 {
        let unanswered = TcpStream::connect_timeout(&proxy.address(), MOMENT).unwrap_err();
        assert_eq!(unanswered.kind(), ErrorKind::TimedOut);
    }
    proxy.set_plan(Plan::pass()).unwrap();
    assert_eq!(ask(&proxy, b"hello"), (b"hello".to_vec(), Ok(())));
}

#[test]
fn a_fault_comes_again_as_often_as_it_should() {
    let (address, _) = counting();
    let plan = Plan::after_bytes(1000, Direction::Up, Fault::Reset);
    let proxy = FaultProxy::start(address, plan.again_every(150_000)).unwrap();
    let reset = (Vec::new(), Err(ErrorKind::ConnectionReset));
    // Each try passes what is left until the next reset.
    assert_eq!(ask(&proxy, &sent()), reset);
    assert_eq!(ask(&proxy, &sent()), reset);
    assert_eq!(ask(&proxy, b"hello"), (b"5".to_vec(), Ok(())));
    assert_eq!(ask(&proxy, &sent()), reset);
    assert_eq!((proxy.strikes(), proxy.bytes(Direction::Up)), (3, 301_000));

    proxy.set_plan(plan.for_ever()).unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&proxy, &sent()), reset);
    }
    assert_eq!((proxy.strikes(), proxy.bytes(Direction::Up)), (8, 302_000));
}

#[test]
fn an_upstream_that_is_gone_is_a_reset() {
    let (address, _) = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (listener.local_addr().unwrap(), ())
    };
    let proxy = FaultProxy::start(address, Plan::pass()).unwrap();
    assert_eq!(ask(&proxy, b"hello").1, Err(ErrorKind::ConnectionReset));
    assert_eq!(proxy.strikes(), 0);
}

#[test]
fn a_dropped_proxy_is_gone_with_its_connections() {
    let (address, _) = echoing();
    let proxy = FaultProxy::start(address, Plan::pass()).unwrap();
    let mut open = connect(&proxy);
    open.write_all(b"a").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let address = proxy.address();
    drop(proxy);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(!matches!(open.read(&mut [0]), Ok(1..)));
}

#[test]
fn seeded_plans_are_repeatable_and_various() {
    let plans: Vec<String> =
        (0..400).map(|seed| format!("{:?}", Plan::from_seed(seed, 1 << 30))).collect();
    assert_eq!(plans[7], format!("{:?}", Plan::from_seed(7, 1 << 30)));
    for kind in ["Reset", "Truncate", "Stall", "Delay", "Up", "Down", "Once", "Every"] {
        let count = plans.iter().filter(|plan| plan.contains(kind)).count();
        assert!((50..350).contains(&count), "{kind}: {count}");
    }
}

#[test]
fn whoever_tries_again_overcomes_every_seeded_plan() {
    let (address, _) = counting();
    let mut strikes = 0;
    for seed in 0..20 {
        let proxy = FaultProxy::start(address, Plan::from_seed(seed, 400_000)).unwrap();
        let tries = (1..=5).find(|_| ask(&proxy, &sent()) == (b"200000".to_vec(), Ok(())));
        assert!(tries.is_some(), "seed {seed}: {:?}", Plan::from_seed(seed, 400_000));
        strikes += proxy.strikes();
    }
    assert!(strikes >= 10, "{strikes}");
}
