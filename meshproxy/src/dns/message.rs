//! Questions read and answers written. Foreign bytes: nothing here may panic, loop or grow.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Seconds that an answer may be kept: an address never changes, but a service may vanish.
const TTL: u32 = 5;
/// What a datagram may carry without fragments (RFC 9715).
const PAYLOAD: u16 = 1232;

/// A question.
#[derive(Debug)]
pub struct Question {
    message: Message,
    /// The name in lower case, without its trailing dot.
    pub name: String,
    /// Whether the name's record is of a kind and class that the mesh answers for.
    pub is_internet: bool,
    kind: RecordType,
}

/// What cannot be answered as a question.
#[derive(Debug)]
pub enum Unread {
    /// Not to be answered at all: an answer itself, or too short to have an id.
    Drop,
    /// To be answered with this.
    Reply(Vec<u8>),
}

/// Reads a question.
pub fn read(bytes: &[u8]) -> Result<Question, Unread> {
    let (Some(&[high, low]), Some(flags)) = (bytes.first_chunk::<2>(), bytes.get(2)) else {
        return Err(Unread::Drop);
    };
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return Err(Unread::Drop);
    }
    let refuse = |code: ResponseCode| {
        let reply = Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, code);
        reply.to_vec().map_or(Unread::Drop, Unread::Reply)
    };
    let message = Message::from_vec(bytes).map_err(|_| refuse(ResponseCode::FormErr))?;
    if message.metadata.op_code != OpCode::Query {
        return Err(refuse(ResponseCode::NotImp));
    }
    let [query] = &message.queries[..] else { return Err(refuse(ResponseCode::FormErr)) };
    let name = query.name().to_ascii().to_ascii_lowercase();
    let kind = query.query_type();
    Ok(Question {
        name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
        is_internet: query.query_class() == DNSClass::IN,
        kind,
        message,
    })
}

impl Question {
    /// The address, if that is what was asked for; no error and nothing otherwise.
    pub fn answer(&self, address: Ipv4Addr) -> Option<Vec<u8>> {
        let mut reply = self.reply(ResponseCode::NoError);
        if matches!(self.kind, RecordType::A | RecordType::ANY)
            && let Some(query) = self.message.queries.first()
        {
            let record = Record::from_rdata(query.name().clone(), TTL, RData::A(address.into()));
            reply.add_answer(record);
        }
        reply.to_vec().ok()
    }

    /// Those of some addresses that are asked for.
    pub fn answer_with(&self, addresses: &[IpAddr]) -> Option<Vec<u8>> {
        let mut reply = self.reply(ResponseCode::NoError);
        let query = self.message.queries.first()?;
        for address in addresses {
            let data = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            if matches!(self.kind, RecordType::ANY) || data.record_type() == self.kind {
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
            }
        }
        reply.to_vec().ok()
    }

    /// Not now.
    pub fn failure(&self) -> Option<Vec<u8>> {
        self.reply(ResponseCode::ServFail).to_vec().ok()
    }

    /// No such name.
    pub fn no_such_name(&self) -> Option<Vec<u8>> {
        self.reply(ResponseCode::NXDomain).to_vec().ok()
    }

    fn reply(&self, code: ResponseCode) -> Message {
        let asked = &self.message.metadata;
        let mut reply = Message::response(asked.id, OpCode::Query);
        reply.metadata.authoritative = code != ResponseCode::ServFail;
        reply.metadata.recursion_desired = asked.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.queries.clone_from(&self.message.queries);
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            reply.edns = Some(edns);
        }
        reply
    }
}

/// A question of our own for the addresses of a name.
pub fn ask(name: &str, v6: bool) -> Option<Vec<u8>> {
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).ok()?;
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, if v6 { RecordType::AAAA } else { RecordType::A }));
    message.to_vec().ok()
}

/// What an answer says of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How long they are good for, in seconds.
    pub ttl: u32,
    /// Whether there is more than the message could hold.
    pub is_cut: bool,
}

/// Reads an answer; empty where it is none.
pub fn answer(bytes: &[u8]) -> Answer {
    let Ok(message) = Message::from_vec(bytes) else { return Answer::default() };
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    Answer {
        addresses: message.answers.iter().filter_map(address).collect(),
        // Names on the way to the address may change, too.
        ttl: message.answers.iter().map(|record| record.ttl).min().unwrap_or(0),
        is_cut: message.metadata.truncation,
    }
}

/// The addresses in an answer.
pub fn addresses(bytes: &[u8]) -> Vec<IpAddr> {
    answer(bytes).addresses
}

/// Whether an answer belongs to a question: same id, and the same question in any case of letters.
pub fn belongs(answer: &[u8], question: &[u8]) -> bool {
    let Some(end) = question_end(question) else { return false };
    let (Some(asked), Some(answered)) = (question.get(12..end), answer.get(12..end)) else { return false };
    answer[..2] == question[..2] && answer[2] & 0x80 != 0 && asked.eq_ignore_ascii_case(answered)
}

/// Where the one question of a message ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => break,
            // A question is never compressed: nothing stands before it.
            length if length > 63 => return None,
            length => at += 1 + usize::from(length),
        }
    }
    let end = at + 5;
    (end <= message.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, v6: bool) -> Vec<u8> {
        ask(name, v6).unwrap()
    }

    #[test]
    fn an_address_is_answered_and_aaaa_is_empty() {
        let address = Ipv4Addr::new(127, 64, 0, 3);
        let read = |bytes: &[u8]| read(bytes).unwrap();
        let four = read(&question("Reviews.Default", false));
        assert_eq!(four.name, "reviews.default");
        assert_eq!(addresses(&four.answer(address).unwrap()), [IpAddr::V4(address)]);
        let six = read(&question("reviews", true)).answer(address).unwrap();
        assert!(addresses(&six).is_empty());
        assert_eq!(six[3] & 0x0f, 0);
        assert_eq!(read(&question("x", false)).no_such_name().unwrap()[3] & 0x0f, 3);
        assert_eq!(read(&question("x", false)).failure().unwrap()[3] & 0x0f, 2);
    }

    #[test]
    fn answers_belong_to_their_question_only() {
        let asked = question("reviews", false);
        let answer = read(&asked).unwrap().answer(Ipv4Addr::LOCALHOST).unwrap();
        assert!(belongs(&answer, &asked));
        let upper = read(&question("REVIEWS", false)).unwrap().answer(Ipv4Addr::LOCALHOST).unwrap();
        assert!(belongs(&upper, &asked));
        assert!(!belongs(&answer, &question("ratings", false)));
        assert!(!belongs(&asked, &asked), "a question is no answer");
        let mut other_id = answer.clone();
        other_id[0] ^= 1;
        assert!(!belongs(&other_id, &asked));
        assert!(!belongs(&answer[..13], &asked));
    }

    #[test]
    fn answers_are_never_answered() {
        let mut bytes = question("a", false);
        bytes[2] |= 0x80;
        assert!(matches!(read(&bytes), Err(Unread::Drop)));
        assert!(matches!(read(&bytes[..5]), Err(Unread::Drop)));
        let mut two = question("a", false);
        two[5] = 2;
        assert!(matches!(read(&two), Err(Unread::Reply(reply)) if reply[3] & 0x0f == 1));
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..300usize) {
            if let Ok(question) = read(&bytes) {
                prop_assert!(question.answer(Ipv4Addr::LOCALHOST).is_some());
            }
            let asked = question("reviews.default", false);
            let mut answer = read(&asked).unwrap().answer(Ipv4Addr::LOCALHOST).unwrap();
            let at = at % answer.len();
            answer.splice(at.., bytes);
            prop_assert!(addresses(&answer).len() <= answer.len());
            let _: bool = belongs(&answer, &asked);
        }
    }
}
