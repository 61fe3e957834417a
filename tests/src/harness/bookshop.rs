//! How answers of the bookshop are judged and counted.

use serde_json::Value;

use super::client::Answer;

/// A page that is whole: the version of the reviews in it, or which part is missing.
pub fn whole_page(answer: &Answer) -> Result<String, String> {
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    let page = answer.json();
    for part in ["details", "reviews"] {
        if page[part]["status"] != 200 {
            return Err(format!("{part}: {}", reason(&page[part])));
        }
    }
    let reviews = &page["reviews"]["body"];
    let version = reviews["version"].as_str().unwrap_or("?");
    if version != "v1" && reviews["ratings"]["status"] != 200 {
        return Err(format!("ratings: {}", reason(&reviews["ratings"])));
    }
    Ok(version.to_owned())
}

/// An answer of one service: its version, or the status.
pub fn version(answer: &Answer) -> Result<String, String> {
    match answer.status {
        200 => Ok(answer.json()["version"].as_str().unwrap_or("?").to_owned()),
        status => Err(format!("status {status}")),
    }
}

/// Counts by status alone.
pub fn status(answer: &Answer) -> Result<String, String> {
    Ok(answer.status.to_string())
}

fn reason(part: &Value) -> String {
    match part["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!("status {} {}", part["status"], part["body"].as_str().unwrap_or_default()),
    }
}
