//! The dashboard's files, compiled in: hashed ones to be kept for good, the page itself to be asked for each time.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// One file as `build.rs` found it.
struct Embedded {
    /// Below the root, as in `assets/index-CWBeUB4m.css`.
    path: &'static str,
    bytes: &'static [u8],
    /// The same, compressed, where that is worth it.
    brotli: Option<&'static [u8]>,
    /// A quoted entity tag.
    tag: &'static str,
}

/// Sorted by path.
static FILES: &[Embedded] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Whatever is in it has its hash in its name.
const HASHED: &str = "assets/";
const INDEX: &str = "index.html";
/// First parts of paths that are the API's, found or not.
const RESERVED: &[&str] = &["api", ".well-known", "metrics", "healthz"];

/// Of the page: nothing but this server's own files, and no script or style within it.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
const ASK_FIRST: &str = "no-cache";

/// The file at `path`, or the page itself, whose script knows the views; nothing where the path is the API's or names a
/// hashed file that is not there.
pub(super) fn answer(path: &str, headers: &HeaderMap) -> Option<Response> {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return None;
    }
    match find(path) {
        Some(file) => Some(send(file, headers)),
        None if path.starts_with(HASHED) => None,
        None => find(INDEX).map(|file| send(file, headers)),
    }
}

fn find(path: &str) -> Option<&'static Embedded> {
    let at = FILES.binary_search_by(|file| file.path.cmp(path)).ok()?;
    FILES.get(at)
}

fn send(file: &'static Embedded, asked: &HeaderMap) -> Response {
    let mut response = contents(file, asked);
    // Also without contents: a browser takes the headers of such an answer for those of the copy that it has.
    if file.path.ends_with(".html") {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    response
}

fn contents(file: &'static Embedded, asked: &HeaderMap) -> Response {
    let is_hashed = file.path.starts_with(HASHED);
    let shared = [
        (header::CACHE_CONTROL, HeaderValue::from_static(if is_hashed { FOR_GOOD } else { ASK_FIRST })),
        (header::ETAG, HeaderValue::from_static(file.tag)),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    if knows(asked, file.tag) {
        return (StatusCode::NOT_MODIFIED, shared).into_response();
    }
    let brotli = file.brotli.filter(|_| takes_brotli(asked));
    let body = Body::from(Bytes::from_static(brotli.unwrap_or(file.bytes)));
    let mut response = (shared, body).into_response();
    let headers = response.headers_mut();
    let kind = kind(file.path);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if brotli.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    response
}

/// Does the browser have the file with this tag?
fn knows(asked: &HeaderMap, tag: &str) -> bool {
    let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).unwrap_or_default();
    known.split(',').map(str::trim).any(|known| known.trim_start_matches("W/") == tag)
}

fn takes_brotli(asked: &HeaderMap) -> bool {
    let encodings =
        asked.get(header::ACCEPT_ENCODING).and_then(|list| list.to_str().ok()).unwrap_or_default();
    encodings.split(',').any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        let is_brotli = parts.next() == Some("br");
        let refused = parts
            .any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)));
        is_brotli && !refused
    })
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn every_file_is_found_under_its_path_and_the_page_is_one_of_them() {
        assert!(FILES.is_sorted_by(|one, next| one.path < next.path));
        assert!(FILES.iter().all(|file| find(file.path).is_some_and(|found| found.tag == file.tag)));
        assert!(find(INDEX).is_some());
    }

    #[test]
    fn brotli_goes_to_whoever_takes_it() {
        for (value, takes) in [
            ("gzip, deflate, br", true),
            ("br;q=0.5", true),
            ("br;q=0", false),
            ("br; q=0.0", false),
            ("gzip", false),
            ("brotli", false),
        ] {
            assert_eq!(takes_brotli(&asking(header::ACCEPT_ENCODING, value)), takes, "{value}");
        }
        assert!(!takes_brotli(&HeaderMap::new()));
    }

    #[test]
    fn a_browser_that_has_the_file_gets_no_second_copy() {
        let asked = |value| knows(&asking(header::IF_NONE_MATCH, value), "\"ab\"");
        assert!(asked("\"ab\"") && asked("\"x\", W/\"ab\"") && !asked("\"abc\"") && !asked(""));
        let tag = find(INDEX).unwrap().tag;
        let response = answer("/", &asking(header::IF_NONE_MATCH, tag)).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
    }

    #[test]
    fn what_is_the_apis_is_not_the_dashboards() {
        let headers = HeaderMap::new();
        for path in ["/api", "/api/v1/x", "/.well-known/est/x", "/metrics", "/assets/none.js"] {
            assert!(answer(path, &headers).is_none(), "{path}");
        }
        for path in ["/", "/devices", "/apis", "/models/mnist@v1.0", "/index.html"] {
            assert_eq!(answer(path, &headers).unwrap().status(), StatusCode::OK, "{path}");
        }
    }
}
