//! The frames of one direction of an HTTP/2 connection (RFC 9113, section 4.1): only their nine-byte headers are looked
//! at, payloads are passed over by length. Counts what costs the reader and carries nothing, and of clients outside the
//! mesh walks the header blocks (`names.rs`); everything else is the library's.
//!
//! Nothing reads a clock until a count is full: then the count must have taken its time, or the connection is refused.

use super::names::Names;
use super::refusal::Refusal;

/// The client's preface (RFC 9113, section 3.4).
const PREFACE: u32 = 24;
/// Frames of a header block behind the first.
const MOST_CONTINUATIONS: u32 = 64;
/// A header block as it travels.
const LONGEST_BLOCK: u32 = 128 * 1024;
/// A count is taken over so long, in milliseconds.
const WINDOW: u64 = 10_000;

/// How much is put up with in ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Frames that carry nothing, beside those that answer what was written.
    pub control: u32,
    /// Streams that are given up, if they are more than half of all.
    pub resets: u32,
}

impl Allowance {
    /// For applications and whoever else is outside.
    pub const OUTSIDE: Allowance = Allowance { control: 1_000, resets: 500 };
    /// For other proxies, which speak for many clients.
    pub const MESH: Allowance = Allowance { control: 100_000, resets: 50_000 };
}

/// What was read of a direction so far.
#[derive(Debug, Clone)]
pub struct Frames {
    allowance: Allowance,
    /// Whether heads of answers are counted: a server could send interim ones for ever.
    answers: bool,
    /// Bytes to pass over.
    skip: u32,
    /// What is passed over is the preface.
    preface: bool,
    header: [u8; 9],
    had: u8,
    /// Length of the header block that has begun, and its frames.
    block: Option<(u32, u32)>,
    blocks: u64,
    begun: u64,
    /// Reads header blocks, where trailers are judged.
    names: Option<Names>,
    /// What is passed over is of a header block.
    reads: bool,
    control: u32,
    resets: u32,
    opened: u32,
    /// When the counts began, and what had been written then.
    since: u64,
    written: u64,
    refused: Option<Refusal>,
}

/// Bytes that are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub refusal: Refusal,
    /// So many bytes of those that were read come before: they end with a whole frame.
    pub at: usize,
    /// Whether the reader has a part of what is refused already, which must not come to its end.
    pub begun: bool,
}

/// Something that has begun and is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// The preface, or this header block: nothing else can happen before it is whole.
    Head(u64),
    /// Another frame: which one.
    Frame(u64),
}

/// What the counts are held against.
pub trait Ledger {
    /// Milliseconds of any clock that does not go back.
    fn now(&self) -> u64;
    /// Bytes that were written the other way so far: who is sent much may answer much.
    fn written(&self) -> u64;
}

impl Frames {
    /// What a client sends: the preface first.
    pub fn of_client(allowance: Allowance) -> Frames {
        Frames { skip: PREFACE, preface: true, ..Frames::of_server(allowance, false) }
    }

    /// The same, and no trailers with pseudo fields.
    pub fn judging_trailers(self) -> Frames {
        Frames { names: Some(Names::default()), ..self }
    }

    /// What a server sends.
    pub fn of_server(allowance: Allowance, answers: bool) -> Frames {
        Frames {
            allowance,
            answers,
            skip: 0,
            preface: false,
            header: [0; 9],
            had: 0,
            block: None,
            blocks: 0,
            begun: 0,
            names: None,
            reads: false,
            control: 0,
            resets: 0,
            opened: 0,
            since: 0,
            written: 0,
            refused: None,
        }
    }

    /// What is not whole.
    pub fn pending(&self) -> Pending {
        if self.preface || self.block.is_some() {
            return Pending::Head(self.blocks);
        }
        match (self.skip, self.had) {
            (0, 0) => Pending::Nothing,
            (0, _) => Pending::Frame(self.begun + 1),
            (_, _) => Pending::Frame(self.begun),
        }
    }

    /// Goes on through what was read.
    pub fn advance(&mut self, bytes: &[u8], ledger: &impl Ledger) -> Result<(), Stop> {
        let mut at = 0;
        // Where the header block begins that is read, if that is among these bytes.
        let mut block = None;
        loop {
            let rest = bytes.len() - at;
            if self.reads && !self.read_block(&bytes[at..at + rest.min(self.skip as usize)]) {
                self.refused = Some(Refusal::Trailer);
                let (at, begun) = block.map_or((0, true), |begin| (begin, false));
                return Err(Stop { refusal: Refusal::Trailer, at, begun });
            }
            if self.skip as usize > rest {
                self.skip -= rest as u32;
                return Ok(());
            }
            at += self.skip as usize;
            self.skip = 0;
            self.preface = false;
            if at == bytes.len() {
                return Ok(());
            }
            if self.had == 0
                && let Some(refusal) = self.refused
            {
                return Err(Stop { refusal, at, begun: false });
            }
            let begin = at;
            let header = match bytes[at..].first_chunk::<9>() {
                Some(header) if self.had == 0 => {
                    at += 9;
                    *header
                }
                _ => {
                    let had = usize::from(self.had);
                    let length = (9 - had).min(bytes.len() - at);
                    self.header[had..had + length].copy_from_slice(&bytes[at..at + length]);
                    at += length;
                    if had + length < 9 {
                        self.had = (had + length) as u8;
                        return Ok(());
                    }
                    self.header
                }
            };
            let whole_header = self.had == 0;
            self.had = 0;
            let goes_on = self.block.is_some();
            match self.frame(header, ledger) {
                Ok(()) if self.reads && !goes_on => block = whole_header.then_some(begin),
                Ok(()) => {}
                // The reader has a part of this frame already: it ends with the next one.
                Err(refusal) if !whole_header => (self.reads, self.refused) = (false, Some(refusal)),
                Err(refusal) => {
                    self.refused = Some(refusal);
                    return Err(Stop { refusal, at: begin, begun: false });
                }
            }
        }
    }

    /// A frame begins.
    fn frame(&mut self, header: [u8; 9], ledger: &impl Ledger) -> Result<(), Refusal> {
        const END_STREAM: u8 = 1;
        const END_HEADERS: u8 = 4;
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.skip = length;
        self.begun += 1;
        self.reads = self.names.is_some() && matches!(kind, 1 | 9);
        match kind {
            // DATA
            0 if length > 0 || flags & END_STREAM != 0 => Ok(()),
            // HEADERS
            1 => {
                self.opened = self.opened.saturating_add(1);
                self.blocks += 1;
                if let Some(names) = &mut self.names {
                    names.begin(u32::from_be_bytes(stream) & 0x7fff_ffff, length, flags);
                }
                self.block = (flags & END_HEADERS == 0).then_some((length, 0));
                if self.answers && flags & END_STREAM == 0 { self.count(ledger) } else { Ok(()) }
            }
            // RST_STREAM
            3 => {
                self.resets += 1;
                if self.resets > self.allowance.resets { self.judge_resets(ledger) } else { Ok(()) }
            }
            // CONTINUATION
            9 => {
                if let Some(names) = &mut self.names {
                    names.go_on(length);
                }
                let (bytes, frames) = self.block.unwrap_or_default();
                let (bytes, frames) = (bytes.saturating_add(length), frames + 1);
                self.block = (flags & END_HEADERS == 0).then_some((bytes, frames));
                if bytes > LONGEST_BLOCK || frames > MOST_CONTINUATIONS {
                    return Err(Refusal::HeaderBlock);
                }
                Ok(())
            }
            // PRIORITY, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, empty DATA, and what nobody knows.
            _ => self.count(ledger),
        }
    }

    /// Reads what is there of a header block.
    fn read_block(&mut self, bytes: &[u8]) -> bool {
        self.names.as_mut().is_none_or(|names| names.read(bytes))
    }

    fn count(&mut self, ledger: &impl Ledger) -> Result<(), Refusal> {
        self.control += 1;
        if self.control > self.allowance.control { self.judge_control(ledger) } else { Ok(()) }
    }

    /// A peer acknowledges settings, opens windows and measures the way for what it is sent: at most one such frame
    /// for each five bytes, since no frame with content is shorter than ten and each opens two windows.
    fn judge_control(&mut self, ledger: &impl Ledger) -> Result<(), Refusal> {
        const BYTES_A_FRAME: u64 = 5;
        let answered = ledger.written().saturating_sub(self.written) / BYTES_A_FRAME;
        let unasked = u64::from(self.control).saturating_sub(answered);
        if unasked <= u64::from(self.allowance.control) {
            // What was answered is settled; the rest goes on counting.
            self.written += (u64::from(self.control) - unasked) * BYTES_A_FRAME;
            self.control = u32::try_from(unasked).unwrap_or(u32::MAX);
            return Ok(());
        }
        self.renew(ledger, Refusal::Control)
    }

    fn judge_resets(&mut self, ledger: &impl Ledger) -> Result<(), Refusal> {
        if u64::from(self.resets) * 2 <= u64::from(self.opened) {
            (self.resets, self.opened) = (0, 0);
            return Ok(());
        }
        self.renew(ledger, Refusal::Resets)
    }

    /// A count is full: it begins again if it has taken its time.
    fn renew(&mut self, ledger: &impl Ledger, refusal: Refusal) -> Result<(), Refusal> {
        let now = ledger.now();
        if now.saturating_sub(self.since) < WINDOW {
            return Err(refusal);
        }
        self.since = now;
        self.written = ledger.written();
        (self.control, self.resets, self.opened) = (0, 0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct Clock {
        now: Cell<u64>,
        written: Cell<u64>,
    }

    impl Ledger for Clock {
        fn now(&self) -> u64 {
            self.now.get()
        }

        fn written(&self) -> u64 {
            self.written.get()
        }
    }

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(9 + payload, 0xaa);
        frame
    }

    /// Feeds the same frames whole, byte by byte and in odd pieces: the verdict must be the same.
    #[track_caller]
    fn check(frames: &[Vec<u8>], clock: &Clock, expected: Option<Refusal>) {
        let bytes = frames.concat();
        for size in [bytes.len(), 1, 7, 10] {
            let mut reader = Frames::of_server(Allowance { control: 10, resets: 4 }, true);
            let mut found = None;
            for piece in bytes.chunks(size.max(1)) {
                if let Err(stop) = reader.advance(piece, clock) {
                    found = Some(stop.refusal);
                    break;
                }
            }
            // One that came in pieces is refused with the next frame.
            let found = found.or(reader.refused);
            assert_eq!(found, expected, "pieces of {size}");
            if expected.is_none() {
                assert_eq!(reader.pending(), Pending::Nothing, "pieces of {size}");
            }
        }
    }

    #[test]
    fn frames_that_carry_nothing_are_counted() {
        let clock = Clock::default();
        for (kind, flags, payload) in
            [(6, 0, 8), (6, 1, 8), (4, 0, 0), (2, 0, 5), (8, 0, 4), (0, 0, 0), (99, 0, 3)]
        {
            check(&vec![frame(kind, flags, payload); 10], &clock, None);
            check(&vec![frame(kind, flags, payload); 11], &clock, Some(Refusal::Control));
        }
        check(&vec![frame(0, 0, 1); 1000], &clock, None);
        check(&vec![frame(0, 1, 0); 1000], &clock, None);
        check(&vec![frame(1, 4, 2); 11], &clock, Some(Refusal::Control));
        check(&vec![frame(1, 5, 2); 1000], &clock, None);
    }

    #[test]
    fn who_is_sent_much_may_answer_much() {
        let clock = Clock::default();
        clock.written.set(1000);
        check(&vec![frame(8, 0, 4); 200], &clock, None);
        check(&vec![frame(8, 0, 4); 211], &clock, Some(Refusal::Control));
    }

    #[test]
    fn a_count_that_took_its_time_begins_again() {
        let clock = Clock::default();
        let mut reader = Frames::of_server(Allowance { control: 10, resets: 4 }, false);
        for step in 0..200 {
            clock.now.set(step * 1_000);
            reader.advance(&frame(6, 0, 8), &clock).unwrap();
        }
    }

    #[test]
    fn more_than_half_of_all_streams_given_up() {
        let clock = Clock::default();
        let pair = |resets: usize| -> Vec<Vec<u8>> {
            let one = [vec![frame(1, 5, 1)], vec![frame(3, 0, 4); resets]].concat();
            std::iter::repeat_n(one, 20).flatten().collect()
        };
        check(&pair(1), &clock, Some(Refusal::Resets));
        let half: Vec<_> =
            (0..40).map(|n| if n % 3 == 2 { frame(3, 0, 4) } else { frame(1, 5, 1) }).collect();
        check(&half, &clock, None);
    }

    #[test]
    fn header_blocks_have_an_end() {
        let clock = Clock::default();
        let block = |frames: usize, payload: usize| {
            let mut block = vec![frame(1, 1, 10)];
            block.resize(frames, frame(9, 0, payload));
            block.push(frame(9, 4, payload));
            block
        };
        check(&block(20, 100), &clock, None);
        check(&block(80, 0), &clock, Some(Refusal::HeaderBlock));
        check(&block(12, 16 * 1024), &clock, Some(Refusal::HeaderBlock));
    }

    #[test]
    fn what_is_not_whole_is_told() {
        let clock = Clock::default();
        let mut reader = Frames::of_client(Allowance::OUTSIDE);
        assert!(matches!(reader.pending(), Pending::Head(_)));
        reader.advance(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", &clock).unwrap();
        assert!(matches!(reader.pending(), Pending::Head(_)));
        reader.advance(b"\n", &clock).unwrap();
        assert_eq!(reader.pending(), Pending::Nothing);
        reader.advance(&frame(1, 0, 4), &clock).unwrap();
        assert!(matches!(reader.pending(), Pending::Head(_)));
        reader.advance(&frame(9, 4, 4), &clock).unwrap();
        assert_eq!(reader.pending(), Pending::Nothing);
        reader.advance(&frame(0, 0, 4)[..11], &clock).unwrap();
        assert_eq!(reader.pending(), Pending::Frame(3));
        reader.advance(&[0, 0, 0], &clock).unwrap();
        assert_eq!(reader.pending(), Pending::Frame(4));
    }

    #[test]
    fn refused_bytes_begin_with_a_whole_frame() {
        let clock = Clock::default();
        let mut reader = Frames::of_server(Allowance { control: 1, resets: 4 }, false);
        let bytes = [frame(0, 0, 5), frame(6, 0, 8), frame(6, 0, 8), frame(0, 0, 5)].concat();
        let stop = reader.advance(&bytes, &clock).unwrap_err();
        assert_eq!(stop, Stop { refusal: Refusal::Control, at: 14 + 17, begun: false });
        // Where a part of the frame's header has been passed on, the frame is passed on whole.
        let mut reader = Frames::of_server(Allowance { control: 1, resets: 4 }, false);
        reader.advance(&bytes[..14 + 17 + 3], &clock).unwrap();
        let stop = reader.advance(&bytes[14 + 17 + 3..], &clock).unwrap_err();
        assert_eq!(stop, Stop { refusal: Refusal::Control, at: 14, begun: false });
    }

    #[test]
    fn trailers_with_a_pseudo_field_do_not_come_to_their_end() {
        let clock = Clock::default();
        let headers = |flags: u8, stream: u8, fields: &[u8]| {
            [&[0, 0, fields.len() as u8, 1, flags, 0, 0, 0, stream][..], fields].concat()
        };
        let (head, body) = (headers(4, 1, b"\x83\x86\x84"), frame(0, 0, 3));
        let read = |trailers: &[u8], size: usize| {
            let mut reader = Frames::of_server(Allowance::OUTSIDE, false).judging_trailers();
            let bytes = [&head, &body, trailers].concat();
            let stops = bytes.chunks(size).map(|piece| reader.advance(piece, &clock));
            stops.filter_map(Result::err).next()
        };
        let trailer = Refusal::Trailer;
        for size in [1, 7, 1000] {
            assert_eq!(read(&headers(5, 1, b"\x00\x01x\x00"), size), None);
            assert_eq!(read(&headers(5, 3, b"\x83\x86\x84"), size), None);
        }
        let begin = head.len() + body.len();
        let bad = headers(5, 1, b"\x00\x01x\x00\x84");
        assert_eq!(read(&bad, 1000), Some(Stop { refusal: trailer, at: begin, begun: false }));
        assert_eq!(read(&bad, 1), Some(Stop { refusal: trailer, at: 0, begun: true }));
        // Split into two frames, of which the first is passed over with the second.
        let split =
            [headers(1, 1, b"\x00\x01"), vec![0, 0, 3, 9, 4, 0, 0, 0, 1], b"x\x00\x84".to_vec()].concat();
        assert_eq!(read(&split, 1000), Some(Stop { refusal: trailer, at: begin, begun: false }));
    }
}
