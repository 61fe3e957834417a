//! A request as a codec would hand it over: a byte of choices, a line with method and target, a line a field. Its form is
//! a fixed point and has nothing in it that belongs to a connection or only proxies may say.

#![no_main]

use http::{HeaderName, HeaderValue, Request, Version};
use libfuzzer_sys::fuzz_target;
use mesh_core::framing::Sizes;
use mesh_core::message::authority::Authority;
use mesh_core::message::framing::Framing;
use mesh_core::message::path::Normalization;
use mesh_core::message::request::{Head, Sender, canonical};

fuzz_target!(|bytes: &[u8]| {
    let Some((choices, text)) = bytes.split_first() else { return };
    let mode = Normalization::ALL[usize::from(choices & 3)];
    let sender = if choices & 4 == 0 { Sender::Anybody } else { Sender::Proxy };
    let version = if choices & 8 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let Some((method, target)) = first.and_then(|line| line.split_once(' ')) else { return };
    let Ok(mut request) = Request::builder().version(version).method(method).uri(target).body(()) else { return };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
    }
    let Ok(head) = canonical(request.into_parts().0, choices & 16 != 0, mode, sender, &Sizes::DEFAULT) else { return };
    assert_clean(&head, mode, sender);
    let again = again(&head, mode, sender);
    assert_eq!(
        (&again.method, &again.authority, &again.target, &again.headers, again.framing),
        (&head.method, &head.authority, &head.target, &head.headers, head.framing),
    );
});

fn assert_clean(head: &Head, mode: Normalization, sender: Sender) {
    for (name, value) in &head.headers {
        let name = name.as_str();
        let hop = ["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "transfer-encoding"];
        assert!(!hop.contains(&name) && name != "host" && name != "expect", "{name}");
        let internal = name.starts_with("x-mesh-") || name.starts_with("x-envoy-");
        assert!(sender == Sender::Proxy || !internal, "{name}");
        assert_eq!(value.as_bytes(), value.as_bytes().trim_ascii());
    }
    for single in ["content-length", "cookie", "te"] {
        assert!(head.headers.get_all(single).iter().count() < 2, "{single}");
    }
    assert!(Authority::parse(head.authority.as_str()).is_ok(), "{}", head.authority);
    // NONE leaves a path as it is.
    assert!(mode == Normalization::None || head.target.as_str().is_ascii(), "{}", head.target);
}

fn again(head: &Head, mode: Normalization, sender: Sender) -> Head {
    let whole = format!("{}://{}{}", head.scheme.name(), head.authority, head.target);
    let star = head.target.as_str() == "*";
    let target = if star { "*" } else { &whole };
    let request = Request::builder().version(Version::HTTP_2).method(head.method.clone()).uri(target);
    let mut request = request.body(()).expect("a form can be written");
    request.headers_mut().clone_from(&head.headers);
    if star {
        request.headers_mut().insert("host", head.authority.as_str().parse().expect("an authority is a value"));
    }
    let ended = head.framing == Framing::Nothing;
    canonical(request.into_parts().0, ended, mode, sender, &Sizes::DEFAULT).expect("a form is not refused")
}
