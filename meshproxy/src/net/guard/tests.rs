//! Guards on their own: what a library would read, and when waiting ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::framing::frames::Allowance;
use mesh_core::framing::refusal::Refusal;
use mesh_core::framing::response::Asked;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use super::answers::{Answers, Question};
use super::cause;
use super::frames::Framed;
use super::requests::Requests;
use crate::net::activity::Activity;

const SLOW: Duration = Duration::from_secs(10);

fn requests() -> (DuplexStream, Requests<DuplexStream>, Arc<Activity>) {
    let (far, near) = tokio::io::duplex(1 << 20);
    let activity = Arc::new(Activity::default());
    (far, Requests::new(near, Arc::clone(&activity), SLOW), activity)
}

/// One read of so many bytes, as text.
async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin), most: usize) -> io::Result<String> {
    let mut buffer = vec![0; most];
    let length = stream.read(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_message_is_read_and_not_more() {
    let (mut far, mut near, activity) = requests();
    far.write_all(format!("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc{GET}{GET}").as_bytes())
        .await
        .unwrap();
    assert!(read(&mut near, 8192).await.unwrap().ends_with("abc"));
    let exchange = activity.begin();
    let waits = tokio::time::timeout(Duration::from_secs(5), read(&mut near, 8192)).await;
    assert!(waits.is_err(), "the next request waits for the answer");
    drop(exchange);
    assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
    // A buffer that is too small gets it in pieces.
    assert_eq!(read(&mut near, 10).await.unwrap(), GET[..10]);
    assert_eq!(read(&mut near, 100).await.unwrap(), GET[10..]);
    drop(far);
    assert_eq!(read(&mut near, 100).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_noticed_while_it_waits() {
    let (mut far, mut near, activity) = requests();
    far.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
    let _exchange = activity.begin();
    drop(far);
    assert_eq!(read(&mut near, 8192).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_head_in_pieces_is_passed_on_whole() {
    let (mut far, mut near, _activity) = requests();
    let sending = async {
        for byte in format!("{GET}{GET}").bytes() {
            far.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        far
    };
    let reading = async {
        assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
        assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
    };
    tokio::join!(sending, reading);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_refused_in_time() {
    let (mut far, mut near, activity) = requests();
    let begun = Instant::now();
    // However steadily it drips.
    let sending = async {
        for byte in "GET / HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat_n(b'y', 50)) {
            far.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let heard = tokio::select! {
        heard = read(&mut near, 8192) => heard.unwrap(),
        () = sending => panic!("it went on"),
    };
    assert!(heard.starts_with("GET / HTTP/1.1\r\nhost: refused\r\n"), "{heard}");
    assert_eq!(activity.refused_head(), Some(Refusal::SlowHead));
    assert!(begun.elapsed() <= SLOW + Duration::from_secs(1), "{:?}", begun.elapsed());
    // An idle connection is not slow.
    let (mut far, mut near, _activity) = requests();
    tokio::time::timeout(SLOW * 3, read(&mut near, 8192)).await.unwrap_err();
    far.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_refused() {
    let (mut far, mut near, activity) = requests();
    far.write_all(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc").await.unwrap();
    read(&mut near, 8192).await.unwrap();
    let _exchange = activity.begin();
    let minute = Duration::from_secs(60);
    let error = tokio::select! {
        () = activity.idle(minute, minute) => panic!("not idle"),
        heard = read(&mut near, 8192) => heard.unwrap_err(),
    };
    assert_eq!(cause(&error), Some(Refusal::SlowBody));
}

#[tokio::test(start_paused = true)]
async fn behind_an_upgrade_nothing_is_judged() {
    let (mut far, mut near, activity) = requests();
    far.write_all(format!("{GET}\0\x01early").as_bytes()).await.unwrap();
    assert_eq!(read(&mut near, 8192).await.unwrap(), GET);
    let exchange = activity.begin();
    tokio::time::timeout(Duration::from_secs(1), read(&mut near, 8192)).await.unwrap_err();
    activity.becomes_tunnel();
    drop(exchange);
    assert_eq!(read(&mut near, 8192).await.unwrap(), "\0\x01early");
    far.write_all(b"\n\n\nlate").await.unwrap();
    assert_eq!(read(&mut near, 8192).await.unwrap(), "\n\n\nlate");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_nobody_asked_for_are_no_answer() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let start = || {
        let (far, near) = tokio::io::duplex(1 << 20);
        let question = Arc::new(Question::default());
        (far, Answers::new(near, Arc::clone(&question)), question)
    };
    let (mut far, mut near, question) = start();
    far.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(cause(&read(&mut near, 8192).await.unwrap_err()), Some(Refusal::Surplus));
    assert_eq!(question.refusal(), Some(Refusal::Surplus));
    let (mut far, mut near, question) = start();
    for _ in 0..2 {
        question.ask(Asked::Plain);
        near.write_all(GET.as_bytes()).await.unwrap();
        for byte in format!("HTTP/1.1 100 Continue\r\n\r\n{answer}").bytes() {
            far.write_all(&[byte]).await.unwrap();
        }
        let mut heard = String::new();
        while !heard.ends_with("ok") {
            heard += &read(&mut near, 16).await.unwrap();
        }
        assert_eq!(question.refusal(), None);
    }
    question.ask(Asked::Plain);
    near.write_all(GET.as_bytes()).await.unwrap();
    far.write_all(format!("{answer}HTTP/1.1 200 OK\r\n\r\nevil").as_bytes()).await.unwrap();
    assert_eq!(read(&mut near, 8192).await.unwrap(), answer);
    assert_eq!(question.refusal(), Some(Refusal::Surplus));
}

#[tokio::test(start_paused = true)]
async fn frames_that_do_not_end_are_refused_in_time() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let open_block = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
    let rows: [(&str, Vec<u8>, bool); 5] = [
        ("half a preface", preface[..10].to_vec(), true),
        ("half a frame's header", [&preface[..], &settings[..4]].concat(), true),
        ("half a frame", [&preface[..], &[0, 0, 9, 0, 0, 0, 0, 0, 1, 1]].concat(), true),
        ("half a header block", [&preface[..], &open_block].concat(), true),
        ("whole frames", [&preface[..], &settings].concat(), false),
    ];
    for (name, bytes, refused) in rows {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let mut near = Framed::of_client(near, Allowance::OUTSIDE, SLOW);
        far.write_all(&bytes).await.unwrap();
        assert_eq!(near.read(&mut [0; 8192]).await.unwrap(), bytes.len(), "{name}");
        let heard = tokio::time::timeout(SLOW + Duration::from_secs(1), near.read(&mut [0; 8192])).await;
        match heard {
            Ok(heard) => {
                assert!(refused, "{name}");
                assert_eq!(cause(&heard.unwrap_err()), Some(Refusal::SlowHead), "{name}");
            }
            Err(_elapsed) => assert!(!refused, "{name}"),
        }
    }
}
