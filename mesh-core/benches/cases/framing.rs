//! Bytes of messages, judged as they were read. The size is the number of fields, or of frames.

use std::hint::black_box;

use mesh_core::framing::frames::{Allowance, Frames, Ledger};
use mesh_core::framing::request::RequestHead;
use mesh_core::framing::response::{Asked, ResponseHead};

use super::Run;

fn head(first: &str, size: usize) -> Vec<u8> {
    let mut head = format!("{first}\r\n");
    for at in 1..size {
        head.push_str(&format!("x-field-{at}: a value of usual length, such as 0123456789\r\n"));
    }
    head.push_str("content-length: 0\r\n\r\n");
    head.into_bytes()
}

/// The head of a request, in one read.
pub(crate) fn request(size: usize) -> Run {
    let bytes = head("GET /orders/17?full=true HTTP/1.1", size);
    Box::new(move || {
        let found = RequestHead::default().scan(black_box(&bytes));
        assert!(black_box(found).is_ok_and(|found| found.is_some()), "a request of this bench");
    })
}

/// The head of an answer, in one read.
pub(crate) fn answer(size: usize) -> Run {
    let bytes = head("HTTP/1.1 200 OK", size);
    Box::new(move || {
        let found = ResponseHead::default().scan(black_box(&bytes), Asked::Plain);
        assert!(black_box(found).is_ok_and(|found| found.is_some()), "an answer of this bench");
    })
}

struct Still;

impl Ledger for Still {
    fn now(&self) -> u64 {
        0
    }

    fn written(&self) -> u64 {
        0
    }
}

/// A header block of a client outside the mesh, in one read: half of its fields are known to the table, half written out.
pub(crate) fn walked(size: usize) -> Run {
    let fields = b"\xbe\x00\x07x-field\x20a value of usual length, like it".repeat(size / 2);
    let mut bytes = vec![0, (fields.len() >> 8) as u8, fields.len() as u8, 1, 5, 0, 0, 0, 1];
    bytes.extend(fields);
    let mut frames = Frames::of_server(Allowance::OUTSIDE, false).judging_trailers();
    Box::new(move || {
        assert!(frames.advance(black_box(&bytes), &Still).is_ok(), "a head of this bench");
    })
}

/// Frames of HTTP/2 with a kilobyte of data each, in one read.
pub(crate) fn frames(size: usize) -> Run {
    let data = [&[0, 4, 0, 0, 0, 0, 0, 0, 1][..], &[0; 1024]].concat();
    let bytes = data.repeat(size);
    let mut frames = Frames::of_server(Allowance::MESH, false);
    Box::new(move || {
        assert!(frames.advance(black_box(&bytes), &Still).is_ok(), "frames of this bench");
    })
}
