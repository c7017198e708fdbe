//! Target `api`: requests to the daemon's routes, over a small store. Whatever is asked, the answer is one
//! of those that the API documents, and the store stays whole.

mod guarded;
mod store;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use thinstore_store::ErrorBody;
use tower::ServiceExt;

use crate::input::Input;

const MOST_REQUESTS: usize = 5;
/// Of an answer as much is read.
const MOST_ANSWER: usize = 8 << 20;

const ROUTES: [(&str, &str); 37] = [
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("GET", "/v1/images"),
    ("GET", "/v1/layers"),
    ("GET", "/v1/tree"),
    ("GET", "/v1/containers"),
    ("GET", "/v1/check"),
    ("GET", "/v1/inspect"),
    ("GET", "/v1/usage"),
    ("GET", "/v1/diff"),
    ("GET", "/v1/block-diff"),
    ("GET", "/v1/cat"),
    ("GET", "/v1/copy-out"),
    ("GET", "/v1/export"),
    ("GET", "/v1/trace"),
    ("POST", "/v1/end-trace"),
    ("POST", "/v1/copy-in"),
    ("POST", "/v1/import"),
    ("POST", "/v1/snapshot"),
    ("POST", "/v1/grow"),
    ("POST", "/v1/commit"),
    ("POST", "/v1/attach"),
    ("POST", "/v1/detach"),
    ("POST", "/v1/mount"),
    ("POST", "/v1/unmount"),
    ("POST", "/v1/remove-container"),
    ("POST", "/v1/remove-image"),
    ("POST", "/v1/scrub"),
    ("POST", "/v1/stop"),
    ("GET", "/"),
    ("PUT", "/v1/images/x"),
    ("GET", "/v1/volumes"),
    ("POST", "/v1/create-volume"),
    ("POST", "/v1/remove-volume"),
    ("POST", "/v1/prune-volumes"),
    ("POST", "/v1/copy-volume"),
    ("POST", "/v1/resize-volume"),
];

const KEYS: [&str; 32] = [
    "name",
    "source",
    "from",
    "to",
    "path",
    "image",
    "size_bytes",
    "follow",
    "format",
    "item_name",
    "item_is_directory",
    "contents_only",
    "keep_owners",
    "wait",
    "pool_only",
    "message",
    "author",
    "read_only",
    "directory",
    "mounts",
    "kind",
    "user_space",
    "object_kind",
    "mount_namespace",
    "names",
    "create_source",
    "destination",
    "tmpfs_size_bytes",
    "tmpfs_mode",
    "blocks",
    "type",
    "size",
];

const VALUES: [&str; 40] = [
    "base",
    "web",
    "base:latest",
    "web2",
    "new",
    "new:1",
    "-",
    "true",
    "false",
    "/",
    "/etc",
    "/etc/motd",
    "/link",
    "/loop",
    "/etc/..",
    "/etc/motd/x",
    "hex:2f65",
    "hex:f",
    "tar",
    "oci",
    "container",
    "image",
    "layer",
    "0",
    "1",
    "4096",
    "67108864",
    "18446744073709551615",
    "1099511627776",
    "-1",
    "1e9",
    "null",
    "[]",
    "{}",
    "\"\"",
    "/a b",
    "%00",
    "sha256:",
    "../..",
    "x",
];

fn text(input: &mut Input<'_>) -> String {
    match input.u8() {
        220..=223 => "thin".to_owned(),
        choice @ 0..=219 => VALUES[usize::from(choice) % VALUES.len()].to_owned(),
        224..=251 => {
            let count = usize::from(input.u8() % 32);
            String::from_utf8_lossy(input.take(count)).into_owned()
        }
        _ => "n".repeat(usize::from(input.u16() % 5000)),
    }
}

fn key(input: &mut Input<'_>) -> String {
    match input.u8() {
        // those of volumes that are devices; the others stay where they are
        224..=231 => "driver".to_owned(),
        232..=239 => "writable".to_owned(),
        choice @ 0..=223 => KEYS[usize::from(choice) % KEYS.len()].to_owned(),
        _ => text(input),
    }
}

/// Keys and values as a query string, percent-encoded or as they are.
fn query(input: &mut Input<'_>) -> String {
    let mut query = String::new();
    for _ in 0..input.u8() % 7 {
        query.push(if query.is_empty() { '?' } else { '&' });
        let (key, value) = (key(input), text(input));
        query.push_str(&key);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'%' if input.u8() < 128 => query.push('%'),
                byte if byte.is_ascii_alphanumeric() || b"/:.-_~".contains(&byte) => {
                    query.push(char::from(byte));
                }
                byte => query.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    query
}

/// Keys and values as a JSON object, or bytes.
fn body(input: &mut Input<'_>) -> Vec<u8> {
    let form = input.u8();
    if form >= 208 {
        let count = usize::from(input.u16() % 4096);
        return input.take(count).to_vec();
    }
    if form >= 192 {
        return b"[".repeat(usize::from(input.u16()));
    }
    let mut object = serde_json::Map::new();
    for _ in 0..form % 8 {
        let (key, value) = (key(input), text(input));
        let value = match input.u8() % 4 {
            // A number, a list, as it would be in JSON.
            0 => serde_json::from_str(&value).unwrap_or(serde_json::Value::Null),
            1 => serde_json::json!([value]),
            _ => serde_json::Value::String(value),
        };
        object.insert(key, value);
    }
    serde_json::Value::Object(object).to_string().into_bytes()
}

fn request(input: &mut Input<'_>) -> Option<(String, Request<Body>)> {
    // A new route leaves those before it where they are.
    let place = usize::from(input.u8() % 64);
    let (method, route) = ROUTES.get(place).copied().unwrap_or(ROUTES[place % 29]);
    let form = input.u8();
    let path = match form {
        255 => format!("/{}", text(input)),
        _ => route.to_owned(),
    };
    let method = match form {
        240..=254 => Method::from_bytes(text(input).as_bytes()).ok()?,
        _ => Method::from_bytes(method.as_bytes()).ok()?,
    };
    let is_post = method == Method::POST;
    let mut request = Request::builder().method(method).uri(format!("{path}{}", query(input)));
    if form & 1 == 0 && is_post {
        request =
            request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if form & 2 != 0 {
        request = request.header(header::TE, HeaderValue::from_static("trailers"));
    }
    let body = if is_post { Body::from(body(input)) } else { Body::empty() };
    // What is no URI never comes to a route.
    Some((path, request.body(body).ok()?))
}

/// As much as is read of an answer, and whether it came to its end.
async fn collected(mut body: Body) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (bytes, false) };
        if let Ok(data) = frame.into_data() {
            let data: Bytes = data;
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MOST_ANSWER {
            return (bytes, false);
        }
    }
    (bytes, true)
}

async fn ask(router: Router, path: &str, request: Request<Body>) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let (bytes, whole) = collected(response.into_body()).await;
    let answer = String::from_utf8_lossy(&bytes);
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}: {answer}");
    if status.is_success() || !whole {
        return;
    }
    // Some refusals are the HTTP library's: a method that the route does not have.
    if status == StatusCode::METHOD_NOT_ALLOWED {
        return;
    }
    let body: ErrorBody = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        panic!("{path} answers {status} with what is no error ({error}): {answer}")
    });
    assert!(!body.error.message.is_empty());
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    store::with(|store| {
        for _ in 0..MOST_REQUESTS {
            if input.is_empty() {
                break;
            }
            if let Some((path, request)) = request(&mut input) {
                store.runtime.block_on(ask(store.router.clone(), &path, request));
            }
        }
        store.bring_back();
    });
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![]];
    for route in 0..33 {
        seeds.push(vec![route, 0]);
        // A name; a name and a path; a source and a name; from and to.
        seeds.push(vec![route, 0, 1, 0, 0]);
        seeds.push(vec![route, 0, 2, 0, 1, 4, 11]);
        seeds.push(vec![route, 0, 0, 2, 1, 0, 3, 0, 4, 3]);
        seeds.push(vec![route, 0, 0, 2, 0, 1, 3, 5, 5, 3]);
        seeds.push(vec![route, 0, 2, 2, 0, 3, 1]);
        seeds.push(vec![route, 0, 3, 1, 6, 0, 5, 21, 7, 208, 0, 4, 1, 2, 3]);
    }
    seeds
}
