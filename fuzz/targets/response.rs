//! An answer and its trailers as a codec would hand them over: two bytes of a status and choices, then a line a field.
//! Nothing in their form belongs to a connection, and none of it is refused or changed a second time.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
use libfuzzer_sys::fuzz_target;
use mesh_core::framing::Sizes;
use mesh_core::message::{response, trailers};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[high, low], text)) = bytes.split_first_chunk::<2>() else { return };
    let (upgrading, status) = (high & 128 != 0, u16::from_be_bytes([high & 3, low]));
    let mut fields = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    let mut late = fields.clone();
    if trailers::canonical(&mut late, &Sizes::DEFAULT).is_ok() {
        assert!(late.keys().all(|name| trailers::is_allowed(name.as_str())));
        let form = late.clone();
        assert_eq!(trailers::canonical(&mut late, &Sizes::DEFAULT), Ok(()));
        assert_eq!(late, form);
    }
    let Ok(response) = Response::builder().status(status).body(()) else { return };
    let mut parts = response.into_parts().0;
    parts.version = if high & 64 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    parts.headers = fields;
    if response::canonical(&mut parts, upgrading, &Sizes::DEFAULT).is_err() || status == 101 {
        return;
    }
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding", "x-mesh-upgrade"] {
        assert!(!parts.headers.contains_key(name), "{name}");
    }
    assert!(parts.headers.get_all("content-length").iter().count() < 2);
    let form = parts.headers.clone();
    parts.version = Version::HTTP_2;
    assert!(response::canonical(&mut parts, false, &Sizes::DEFAULT).is_ok());
    assert_eq!(parts.headers, form);
});
