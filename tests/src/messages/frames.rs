//! Frames of HTTP/2 by hand, good and bad: what a library would refuse to write.

use std::io::Read;

use anyhow::{Context, bail};

use super::cases::bytes;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// Stands for the number of whatever stream is answered.
pub(super) const ANY: u32 = 0x7fff_ffff;

/// A frame that was read.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Its type.
    pub(super) kind: u8,
    /// Its flags.
    pub(super) flags: u8,
    /// Its stream.
    pub(super) stream: u32,
    /// Its payload.
    pub(super) payload: Vec<u8>,
}

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Reads a frame; `None` at the end.
pub(super) fn read(from: &mut impl Read) -> std::io::Result<Option<Frame>> {
    let mut header = [0; 9];
    match from.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & ANY;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(Frame { kind: header[3], flags: header[4], stream, payload }))
}

/// A header block of literals that no table keeps (RFC 7541, section 6.2.2), whatever bytes they have.
pub(super) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(*text);
        }
    }
    block
}

/// A length of seven bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The status that a header block begins with. Its writer has been told to keep no table.
pub(super) fn status(mut block: &[u8]) -> Option<u16> {
    // Changes of the table's size come first.
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, rest @ ..] => value(rest),
        // The name written out, plain or as Huffman codes.
        [0x00 | 0x10 | 0x40, 0x07, rest @ ..] => value(rest.get(7..)?),
        [0x00 | 0x10 | 0x40, 0x85, rest @ ..] => value(rest.get(5..)?),
        _ => None,
    }
}

fn value(text: &[u8]) -> Option<u16> {
    let (length, rest) = text.split_first()?;
    let digits = rest.get(..usize::from(length & 127))?;
    if length & 128 == 0 {
        return std::str::from_utf8(digits).ok()?.parse().ok();
    }
    // RFC 7541, appendix B: 0 to 2 have five bits, 3 to 9 six.
    let bits = digits.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let (mut left, mut status) = (digits.len() * 8, 0);
    for _ in 0..3 {
        let five = bits >> left.checked_sub(5)? & 31;
        let (digit, length) = match five {
            0..=2 => (five, 5),
            _ => ((bits >> left.checked_sub(6)? & 63).checked_sub(25)? + 3, 6),
        };
        left -= length;
        status = status * 10 + digit as u16;
    }
    Some(status)
}

/// Frames as cases write them: ` ; ` between frames, each `H1e name=value ...`, `C1 ...`, `D1e TEXT` or
/// `F type flags stream HEX`. `e` ends the stream, `o` leaves the header block open, `@` is the stream that is answered.
pub(super) fn frames(text: &str, host: &str) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    for part in text.split(" ; ") {
        all.extend(one(part.trim(), host).with_context(|| part.to_owned())?);
    }
    Ok(all)
}

fn one(text: &str, host: &str) -> anyhow::Result<Vec<u8>> {
    let text = text.replace("{g}", &spelt("GET")).replace("{p}", &spelt("POST"));
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let first = words.next().context("no frame")?;
    let (kind, rest) = first.split_at(1);
    if kind == "F" {
        let mut number = || words.next().context("a number")?.parse::<u32>().map_err(anyhow::Error::from);
        let (kind, flags, stream) = (number()?, number()?, number()?);
        let payload = bytes(&words.collect::<String>(), host)?;
        return Ok(frame(u8::try_from(kind)?, u8::try_from(flags)?, stream, &payload));
    }
    if kind == "R" {
        return bytes(text.strip_prefix("R ").unwrap_or_default(), host);
    }
    let digits = rest.trim_end_matches(['e', 'o']);
    let stream = if digits == "@" { ANY } else { digits.parse()? };
    let ends = if rest.contains('e') { END_STREAM } else { 0 };
    let whole = if rest.contains('o') { 0 } else { END_HEADERS };
    let mut fields = |repeat: &mut Vec<u8>| -> anyhow::Result<()> {
        for word in words.by_ref() {
            let (word, times) = match word.rsplit_once("~") {
                Some((word, times)) => (word, times.parse()?),
                None => (word, 1),
            };
            // A name may itself begin with a colon, or be empty.
            let (name, value) = word.split_once('=').context("name=value")?;
            let (name, value) = (bytes(name, host)?, bytes(value, host)?);
            repeat.extend(block(&[(&name, &value)]).repeat(times));
        }
        Ok(())
    };
    let mut payload = Vec::new();
    match kind {
        "H" => fields(&mut payload)?,
        "C" => fields(&mut payload)?,
        "D" => payload = bytes(text.split_once(' ').map_or("", |(_, rest)| rest), host)?,
        _ => bail!("no frame {kind}"),
    }
    Ok(match kind {
        "H" => frame(1, ends | whole, stream, &payload),
        "C" => frame(9, whole, stream, &payload),
        _ => frame(0, ends, stream, &payload),
    })
}

fn spelt(method: &str) -> String {
    format!(":method={method} :scheme=http :authority={{host}} :path=/t")
}

/// The same frames on another stream.
pub(super) fn renumbered(bytes: &[u8], number: u32) -> Vec<u8> {
    let (mut all, mut at) = (bytes.to_vec(), 0);
    while let Some(header) = bytes.get(at..at + 9) {
        if header[5..] == ANY.to_be_bytes() {
            all[at + 5..at + 9].copy_from_slice(&number.to_be_bytes());
        }
        at += 9 + u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_every_spelling() {
        for (block, expected) in [
            (&[0x88][..], 200),
            (&[0x20, 0x8c], 400),
            (&[0x08, 3, b'4', b'3', b'1'], 431),
            // 403: 011010 00000 011001
            (&[0x48, 0x83, 0x68, 0x0c, 0xff], 403),
            // 502: 011011 00000 00010
            (&[0x08, 0x82, 0x6c, 0x02], 502),
        ] {
            assert_eq!(status(block), Some(expected), "{block:x?}");
        }
    }

    #[test]
    fn frames_as_cases_write_them() {
        let written = frames("H1e :method=GET x=\\s ; D3e abc ; F 8 0 0 \\0\\0\\0\\x01", "").unwrap();
        let mut reader = &written[..];
        let mut next = || read(&mut reader).unwrap().unwrap();
        let first = next();
        assert_eq!((first.kind, first.flags, first.stream), (1, 5, 1));
        assert!(first.payload.ends_with(b"\0\x01x\x01 "));
        assert_eq!(next().payload, b"abc");
        assert_eq!(next().payload, [0, 0, 0, 1]);
        let again = renumbered(&frames("H@e a=b", "").unwrap(), 7);
        assert_eq!(read(&mut &again[..]).unwrap().unwrap().stream, 7);
    }
}
