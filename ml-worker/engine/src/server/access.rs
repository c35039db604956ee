//! Who may ask, and for how long: API keys, pages of other origins, identifiers and deadlines of requests.

use super::error::ApiError;
use super::options::OptionsError;
use super::Server;
use crate::cache::prefix::Tenant;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The header that names a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header by which a client says how many milliseconds it will wait.
pub const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Longest identifier that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;

/// Keys of which a request must carry one. Only their hashes are kept, and they are never printed.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<blake3::Hash>);

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl ApiKeys {
    /// Keys; without any, nobody needs one.
    pub fn new<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self(keys.into_iter().map(|key| blake3::hash(key.as_ref().as_bytes())).collect())
    }

    /// Reads further keys from a file: one a line, empty lines and those that begin with `#` left out.
    pub fn add_file(&mut self, file: &Path) -> Result<(), OptionsError> {
        let unreadable = |error| OptionsError::KeyFile { file: file.to_owned(), error };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let before = self.0.len();
        self.0.extend(lines.map(|key| blake3::hash(key.as_bytes())));
        // A file that was emptied by mistake must not open the server to everybody.
        if self.0.len() == before {
            return Err(OptionsError::NoKey(file.to_owned()));
        }
        Ok(())
    }

    /// Whether callers need a key at all.
    pub fn is_needed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a key is good. Takes the same time whichever it is: hashes are compared, all of them, in constant time.
    pub fn admit(&self, given: Option<&str>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(given) = given.map(|given| blake3::hash(given.as_bytes())) else { return false };
        self.0.iter().fold(false, |found, key| found | (*key == given))
    }
}

/// When to give up on a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now; never, if that is further than clocks go.
    pub fn after(patience: Duration) -> Self {
        Self(Instant::now().checked_add(patience))
    }

    /// The moment itself, for the engine.
    pub fn instant(self) -> Option<std::time::Instant> {
        self.0.map(Instant::into_std)
    }

    /// Waits for `work`, until the deadline.
    pub async fn limit<T>(self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        match self.0 {
            Some(end) => tokio::time::timeout_at(end, work).await.map_err(|_| ApiError::timeout()),
            None => Ok(work.await),
        }
    }
}

/// Who asks, and how long it waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// When to give up.
    pub deadline: Deadline,
    /// The same by the request alone, without the operator's limit: that is meant for answers, and a Host that cannot
    /// check a long one of others abstains.
    pub own_deadline: Deadline,
    /// Whose cached text may be used, and whose turn it is: holders of different keys share neither.
    pub tenant: Tenant,
}

impl Caller {
    /// Asks now, with the time that the request itself and the operator leave.
    fn new(asked: Option<Duration>, operator: Option<Duration>, tenant: Tenant) -> Self {
        let end = |patience: Option<Duration>| patience.map_or(Deadline::default(), Deadline::after);
        Self { deadline: end([asked, operator].into_iter().flatten().min()), own_deadline: end(asked), tenant }
    }
}

/// The key that a request shows. The scheme's name is written in any case.
fn bearer(request: &Request) -> Option<&str> {
    let (scheme, key) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Refuses requests without a good key; where none is needed, those of web pages that nobody allowed.
///
/// A browser sends some requests of any page without asking first, also to this machine, and only keeps the answer from
/// the page. By then the work is done: so whatever is more than reading is refused by the header that pages cannot leave
/// out or forge. A key would not be known to them.
pub async fn require_key(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let options = &server.options;
    if !options.keys.admit(bearer(&request)) {
        return ApiError::unauthorized().into_response();
    }
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    match request.headers().get(ORIGIN) {
        Some(origin) if !options.keys.is_needed() && !reads && !options.origins.allow(origin) => {
            ApiError::foreign_page(&String::from_utf8_lossy(origin.as_bytes())).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Gives every request an identifier, which its answer names, and a deadline.
pub async fn identify(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let fits = |value: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let id = match request.headers().get(REQUEST_ID).filter(fits) {
        Some(given) => given.clone(),
        None => {
            let made = format!("req-{}", hex::encode(super::generation::random::<12>()));
            HeaderValue::from_str(&made).unwrap_or(HeaderValue::from_static("req"))
        }
    };
    let asked = match request.headers().get(TIMEOUT_MS).map(|value| value.to_str().ok().and_then(|ms| ms.parse().ok()))
    {
        None => None,
        Some(Some(ms)) if ms > 0 => Some(Duration::from_millis(ms)),
        Some(_) => {
            let wrong = ApiError::bad_request(format!("{TIMEOUT_MS} must be a number of milliseconds"));
            return named(wrong.into_response(), id);
        }
    };
    let tenant = match bearer(&request) {
        Some(key) if server.options.keys.is_needed() => Tenant::of(key.as_bytes()),
        _ => Tenant::default(),
    };
    request.extensions_mut().insert(Caller::new(asked, server.options.request_timeout, tenant));
    named(next.run(request).await, id)
}

fn named(mut response: Response, id: HeaderValue) -> Response {
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Whose web pages may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Nobody's.
    #[default]
    None,
    /// Those of these origins.
    Of(Vec<HeaderValue>),
    /// Everybody's.
    All,
}

impl Origins {
    /// Reads origins such as `https://example.org`; `*` stands for all.
    pub fn new(origins: &[String]) -> Result<Self, OptionsError> {
        if origins.is_empty() {
            return Ok(Self::None);
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Self::All);
        }
        let parsed = origins.iter().map(|origin| origin.parse().map_err(|_| OptionsError::Origin(origin.clone())));
        Ok(Self::Of(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether pages of this origin may ask.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::None => false,
            Self::Of(list) => list.contains(origin),
            Self::All => true,
        }
    }

    /// What lets browsers give these pages the answers.
    pub fn layer(&self) -> Option<CorsLayer> {
        let allowed = match self {
            Self::None => return None,
            Self::Of(list) => AllowOrigin::list(list.clone()),
            Self::All => AllowOrigin::any(),
        };
        let layer = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
            .expose_headers([REQUEST_ID, CONTENT_TYPE])
            .max_age(Duration::from_secs(600));
        Some(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_should_admit_when_there_are_none_or_one_fits() {
        assert!(ApiKeys::default().admit(None));
        let keys = ApiKeys::new(["one", "two"]);
        assert!(keys.admit(Some("one")) && keys.admit(Some("two")));
        assert!(!keys.admit(Some("three")) && !keys.admit(None) && !keys.admit(Some("")));
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn caller_should_have_its_own_deadline_when_the_operator_sets_a_limit() {
        let (short, long) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(600)));
        let of = |asked, operator| {
            let caller = Caller::new(asked, operator, Tenant::default());
            (caller.deadline.instant(), caller.own_deadline.instant())
        };
        assert_eq!(of(None, None), (None, None));
        assert!(matches!(of(None, short), (Some(_), None)));
        let (limited, own) = of(long, short);
        assert!(limited.unwrap() < own.unwrap());
        let (limited, own) = of(short, long);
        assert!(limited.unwrap() <= own.unwrap());
    }

    #[test]
    fn key_file_should_be_refused_when_it_holds_no_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# keys\n\n a \nb\n").unwrap();
        let mut keys = ApiKeys::default();
        keys.add_file(file.path()).unwrap();
        assert!(keys.admit(Some("a")) && keys.admit(Some("b")) && !keys.admit(Some("# keys")));
        std::fs::write(file.path(), "# none\n").unwrap();
        assert!(ApiKeys::default().add_file(file.path()).is_err());
    }
}
