//! What each service answers.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::{App, Role};

/// Answers one request.
pub(crate) async fn answer(
    app: Rc<App>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_end_matches('/').to_owned();
    let mut steps = path.split('/').skip(1);
    let (first, second) = (steps.next().unwrap_or_default(), steps.next());
    if first == "echo" && head.method == Method::POST {
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Ok(reply(StatusCode::OK, Full::new(bytes), "application/octet-stream"));
    }
    let (status, value) = match (first, second, app.role) {
        ("health", None, _) => (StatusCode::OK, json!({"status": "healthy"})),
        ("headers", None, _) => {
            (StatusCode::OK, seen(&head.headers, &head.uri, &format!("{:?}", head.version)))
        }
        ("slow", Some(millis), _) => slow(millis).await,
        ("fail", Some(percent), _) => fails(&app, percent),
        ("chain", Some(next), _) => {
            let rest = path.trim_start_matches("/chain").trim_start_matches('/').trim_start_matches(next);
            chain(&app, next, rest, &head.headers).await
        }
        ("bytes", Some(count), _) => return Ok(filler(count)),
        ("" | "productpage", None, Role::Productpage) => productpage(&app, &head.headers).await,
        ("reviews", Some(id), Role::Reviews) => reviews(&app, id, &head.headers).await,
        ("ratings", Some(id), Role::Ratings) => (StatusCode::OK, json!({"id": id, "ratings": stars(id)})),
        ("details", Some(id), Role::Details) => (StatusCode::OK, details(id)),
        _ => (StatusCode::NOT_FOUND, json!({"error": "no such page"})),
    };
    let mut whole = Map::new();
    whole.insert("role".into(), Value::from(name(app.role)));
    whole.insert("version".into(), Value::from(app.version.as_str()));
    whole.insert("instance".into(), Value::from(app.instance.as_str()));
    if let Value::Object(fields) = value {
        whole.extend(fields);
    }
    let mut response =
        reply(status, Full::new(Bytes::from(Value::Object(whole).to_string())), "application/json");
    if let Ok(version) = app.version.parse() {
        response.headers_mut().insert("x-app-version", version);
    }
    Ok(response)
}

fn reply(status: StatusCode, body: Full<Bytes>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Productpage => "productpage",
        Role::Reviews => "reviews",
        Role::Ratings => "ratings",
        Role::Details => "details",
    }
}

/// The whole page: the details and reviews of one book, whatever became of the calls for them.
async fn productpage(app: &App, headers: &HeaderMap) -> (StatusCode, Value) {
    let (details, reviews) =
        tokio::join!(app.details.get("/details/0", headers), app.reviews.get("/reviews/0", headers));
    let user = headers.get("end-user").and_then(|v| v.to_str().ok());
    (
        StatusCode::OK,
        json!({"title": "A Comedy of Meshes", "user": user, "details": details, "reviews": reviews}),
    )
}

async fn reviews(app: &App, id: &str, headers: &HeaderMap) -> (StatusCode, Value) {
    let texts = ["A slapstick that keeps its twins apart.", "Less amusing on the second reading."];
    let color = match app.version.as_str() {
        "v1" => return (StatusCode::OK, json!({"id": id, "reviews": texts})),
        "v2" => "black",
        _ => "red",
    };
    let ratings = app.ratings.get(&format!("/ratings/{id}"), headers).await;
    (StatusCode::OK, json!({"id": id, "reviews": texts, "color": color, "ratings": ratings}))
}

fn stars(id: &str) -> Value {
    json!({"first": 5, "second": if id == "0" { 4 } else { 3 }})
}

fn details(id: &str) -> Value {
    json!({"id": id, "author": "W. Shakespeare", "pages": 200, "year": 1595, "language": "English"})
}

/// Fails so many of a hundred requests.
fn fails(app: &App, percent: &str) -> (StatusCode, Value) {
    let next =
        app.chance.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    app.chance.set(next);
    let fails = (next >> 33) % 100 < percent.parse().unwrap_or(0);
    let status = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, json!({"failed": fails}))
}

/// Calls the next service of a chain for the rest of the path, `/SERVICE/...` or what the last one answers, and says what
/// came of it: one that ends in a failure is one.
async fn chain(app: &App, next: &str, rest: &str, headers: &HeaderMap) -> (StatusCode, Value) {
    let upstream = match next {
        "details" => &app.details,
        "reviews" => &app.reviews,
        "ratings" => &app.ratings,
        "productpage" => &app.productpage,
        _ => return (StatusCode::NOT_FOUND, json!({"error": "no such service"})),
    };
    let is_last = rest.starts_with("/fail/");
    let path = if is_last { rest.to_owned() } else { format!("/chain{rest}") };
    let answer = upstream.get(&path, headers).await;
    let status =
        answer["status"].as_u64().and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    (status.unwrap_or(StatusCode::BAD_GATEWAY), json!({"next": next}))
}

/// What arrived, so that a test sees what the path to here has done to it.
fn seen(headers: &HeaderMap, uri: &http::Uri, version: &str) -> Value {
    let list: Vec<Value> =
        headers.iter().map(|(n, v)| json!([n.as_str(), String::from_utf8_lossy(v.as_bytes())])).collect();
    json!({"uri": uri.to_string(), "protocol": version, "headers": list})
}

async fn slow(millis: &str) -> (StatusCode, Value) {
    let Ok(millis) = millis.parse::<u64>() else {
        return (StatusCode::BAD_REQUEST, json!({"error": "how many milliseconds?"}));
    };
    tokio::time::sleep(Duration::from_millis(millis.min(60_000))).await;
    (StatusCode::OK, json!({"slept": millis}))
}

/// So many bytes of nothing, for tests of size.
fn filler(count: &str) -> Response<Full<Bytes>> {
    let count = count.parse::<usize>().unwrap_or(0).min(16 << 20);
    reply(StatusCode::OK, Full::new(Bytes::from(vec![b'x'; count])), "application/octet-stream")
}
