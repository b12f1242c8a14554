//! Requests to a hub. Redirects are followed here and not by the client library, because it matters where each leads: the
//! token goes to the hub's own origin alone, and never from https to http.

use std::io::Read;
use std::time::Duration;

use provenance::Cancellation;
use ureq::http::{HeaderMap, header};
use url::Url;

use crate::{Address, Error, Listing};

/// The hub that most publishers use.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const MOST_REDIRECTS: usize = 10;
/// Whoever asks for a list waits in front of it.
const LIST_ATTEMPTS: u32 = 3;
/// A list of files is never longer.
const LARGEST_LISTING_BYTES: u64 = 64 << 20;
const PIECE: Duration = Duration::from_millis(50);

/// Which hub, as whom, and with how much patience.
#[derive(Clone)]
pub struct HubSettings {
    /// Beginning of all addresses: the hub's, or a mirror's that speaks as it does.
    pub endpoint: String,
    /// Says who asks; needed for gated and private repositories alone.
    pub token: Option<String>,
    /// Silence of a server that counts as a broken connection.
    pub silence: Duration,
    /// How often something is asked for that fails for a reason that may pass, without a byte gained in between.
    pub attempts: u32,
    /// Pause after the first failure; it doubles each time.
    pub first_pause: Duration,
    /// No pause is longer, whatever a server asks for; one that asks for more is told no.
    pub longest_pause: Duration,
}

impl Default for HubSettings {
    fn default() -> Self {
        HubSettings {
            endpoint: DEFAULT_ENDPOINT.to_string(),
            token: None,
            silence: Duration::from_secs(60),
            attempts: 6,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
        }
    }
}

/// A hub that can be asked.
pub struct Hub {
    agent: ureq::Agent,
    endpoint: Url,
    pub(crate) settings: HubSettings,
}

/// An answer whose body is still to be read.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Box<dyn Read>,
    /// Without its query, for messages.
    pub address: String,
}

/// Bytes from here on, if they are still of the version with this tag.
pub(crate) struct Resume<'a> {
    pub from: u64,
    pub etag: Option<&'a str>,
}

/// Why a request failed.
pub(crate) enum Failure {
    /// May pass: asked again after a pause, or after the one that the server named.
    Passing { address: String, problem: String, wait: Option<Duration> },
    /// Will not pass.
    Lasting(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Lasting(error)
    }
}

impl Hub {
    /// A client for a hub; asks nothing yet.
    ///
    /// # Errors
    /// When the address of the hub or the token could not be sent.
    pub fn new(settings: HubSettings) -> Result<Hub, Error> {
        let wrong = |problem: String| Error::Endpoint { address: settings.endpoint.clone(), problem };
        let endpoint = Url::parse(settings.endpoint.trim_end_matches('/'))
            .map_err(|error| wrong(format!("{error}; expected something like {DEFAULT_ENDPOINT}")))?;
        if !matches!(endpoint.scheme(), "https" | "http") || endpoint.host_str().is_none() {
            return Err(wrong("expected https://HOST".to_string()));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() || endpoint.query().is_some() {
            return Err(wrong("it must hold no name, password or query".to_string()));
        }
        if settings
            .token
            .as_ref()
            .is_some_and(|token| token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()))
        {
            return Err(wrong(
                "the token that goes with it holds spaces or other characters that no token has".into(),
            ));
        }
        if settings.token.is_some() && !is_private(&endpoint) {
            return Err(wrong(
                "a token must not travel over plain http; use https, or give no token".to_string(),
            ));
        }
        // The provider of the whole program; where another part has installed it already, it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        let mut config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("eulalia/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence));
        if is_loopback(&endpoint) {
            config = config.proxy(None);
        }
        Ok(Hub { agent: config.build().new_agent(), endpoint, settings })
    }

    /// What stands on the hub about a repository at a revision.
    ///
    /// # Errors
    /// When it is not there, not allowed, or not understood.
    pub fn listing(&self, address: &Address, cancellation: &Cancellation) -> Result<Listing, Error> {
        let mut url = self.place(&["api", "models"], &address.repository);
        // A branch may hold a slash, which must not become one of the address.
        segments(&mut url).push("revision").push(&address.revision);
        url.set_query(Some("blobs=true"));
        let body = self.again(self.settings.attempts.min(LIST_ATTEMPTS), cancellation, || {
            let reply = self.get(&url, None, address)?;
            let shown = reply.address.clone();
            let mut body = Vec::new();
            reply.body.take(LARGEST_LISTING_BYTES + 1).read_to_end(&mut body).map_err(|error| {
                Failure::Passing { address: shown.clone(), problem: error.to_string(), wait: None }
            })?;
            if body.len() as u64 > LARGEST_LISTING_BYTES {
                let problem = format!("the list of files is longer than {LARGEST_LISTING_BYTES} bytes");
                return Err(Error::Protocol { address: shown, problem }.into());
            }
            Ok(body)
        })?;
        Listing::parse(&address.repository, &body)
    }

    /// Opens a file of a listing.
    pub(crate) fn file(
        &self,
        listing: &Listing,
        path: &str,
        resume: Option<&Resume>,
    ) -> Result<Reply, Failure> {
        let mut url = self.place(&[], &listing.repository);
        segments(&mut url).push("resolve").push(&listing.commit).extend(path.split('/'));
        let address = Address { repository: listing.repository.clone(), revision: listing.commit.clone() };
        self.get(&url, resume, &address)
    }

    /// The page of a repository, for people.
    pub fn page(&self, repository: &str) -> String {
        self.place(&[], repository).to_string()
    }

    fn tokens_page(&self) -> String {
        self.place(&["settings", "tokens"], "").to_string()
    }

    fn place(&self, before: &[&str], repository: &str) -> Url {
        let mut url = self.endpoint.clone();
        segments(&mut url)
            .pop_if_empty()
            .extend(before)
            .extend(repository.split('/').filter(|part| !part.is_empty()));
        url
    }

    /// Runs `ask` until it succeeds, fails for good, or has failed too often.
    pub(crate) fn again<T>(
        &self,
        attempts: u32,
        cancellation: &Cancellation,
        mut ask: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut attempt = 0;
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    attempt += 1;
                    self.pause(attempt, attempts, failure, cancellation)?;
                }
            }
        }
    }

    /// Waits after failure number `attempt` (from 1) of at most `attempts`.
    ///
    /// # Errors
    /// The failure itself, where another attempt is of no use.
    pub(crate) fn pause(
        &self,
        attempt: u32,
        attempts: u32,
        failure: Failure,
        cancellation: &Cancellation,
    ) -> Result<(), Error> {
        let (address, problem, wait) = match failure {
            Failure::Lasting(error) => return Err(error),
            Failure::Passing { address, problem, wait } => (address, problem, wait),
        };
        let HubSettings { first_pause, longest_pause, .. } = self.settings;
        if attempt >= attempts || wait.is_some_and(|wait| wait > longest_pause) {
            return Err(Error::Unreachable { address, problem, attempts: attempt });
        }
        let doubled = first_pause.saturating_mul(1 << (attempt - 1).min(16));
        let mut left = wait.unwrap_or(doubled).min(longest_pause);
        while !left.is_zero() {
            cancellation.check()?;
            let piece = left.min(PIECE);
            std::thread::sleep(piece);
            left -= piece;
        }
        Ok(cancellation.check()?)
    }

    fn get(&self, url: &Url, resume: Option<&Resume>, of: &Address) -> Result<Reply, Failure> {
        let mut url = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let own = url.origin() == self.endpoint.origin();
            let mut request = self.agent.get(url.as_str()).header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| own) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(resume) = resume {
                request = request.header(header::RANGE, format!("bytes={}-", resume.from));
                if let Some(etag) = resume.etag {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            let address = without_query(&url);
            let response = request.call().map_err(|error| from_library(&address, &error))?;
            let (parts, body) = response.into_parts();
            let reply = Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: Box::new(body.into_reader()),
                address,
            };
            if own
                && let Some(commit) = reply.text("x-repo-commit").filter(|_| is_commit(&of.revision))
                && commit != of.revision
            {
                let problem = format!("the hub answers with commit {commit} instead of {}", of.revision);
                return Err(Error::Protocol { address: reply.address, problem }.into());
            }
            match reply.status {
                200 | 206 | 416 => return Ok(reply),
                301 | 302 | 303 | 307 | 308 => url = redirected(&url, &reply)?,
                _ => return Err(self.refused(&reply, own, of)),
            }
        }
        let problem = format!("more than {MOST_REDIRECTS} redirects");
        Err(Error::Protocol { address: without_query(&url), problem }.into())
    }

    /// What an answer without content means.
    fn refused(&self, reply: &Reply, own: bool, of: &Address) -> Failure {
        let address = reply.address.clone();
        let passing = |problem: String| Failure::Passing {
            address: address.clone(),
            problem,
            wait: reply
                .text("retry-after")
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
        };
        let repository = of.repository.clone();
        let page = self.page(&repository);
        let tokens = self.tokens_page();
        let gated = reply.text("x-error-code") == Some("GatedRepo");
        let token = self.settings.token.is_some();
        match reply.status {
            // An address that was signed for some minutes: the hub signs another.
            401 | 403 if !own => passing(format!("answered {}", reply.status)),
            401 | 403 if gated && token => Error::GatedForToken { repository, page }.into(),
            401 | 403 if gated => Error::Gated { repository, page, tokens }.into(),
            401 if token && reply.text("x-error-code").is_none() => Error::TokenRefused { tokens }.into(),
            401 | 404 => Error::NotFound { repository, revision: of.revision.clone(), page }.into(),
            403 if token => Error::GatedForToken { repository, page }.into(),
            403 => Error::Gated { repository, page, tokens }.into(),
            429 => passing("too many requests".to_string()),
            408 | 500..=599 => passing(format!("answered {}", reply.status)),
            status => Error::Refused { address, status }.into(),
        }
    }
}

impl Reply {
    /// A header's value, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

fn redirected(from: &Url, reply: &Reply) -> Result<Url, Failure> {
    let wrong =
        |problem: &str| Error::Protocol { address: reply.address.clone(), problem: problem.to_string() };
    let location = reply.text("location").ok_or_else(|| wrong("a redirect without a place"))?;
    let to = from.join(location).map_err(|_| wrong("a redirect to something that is no address"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        ("https", "http") => {
            Err(wrong("a redirect from https to http, which others could read and change").into())
        }
        _ => Err(wrong("a redirect to something that is not https").into()),
    }
}

fn from_library(address: &str, error: &ureq::Error) -> Failure {
    let problem = error.to_string();
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Error::Protocol { address: address.to_string(), problem }.into()
        }
        // A certificate that is not trusted comes as an error of input and output.
        ureq::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            Error::Protocol { address: address.to_string(), problem }.into()
        }
        _ => Failure::Passing { address: address.to_string(), problem, wait: None },
    }
}

fn segments(url: &mut Url) -> url::PathSegmentsMut<'_> {
    url.path_segments_mut().expect("an address with a host has a path")
}

/// Signed addresses hold secrets in their query.
fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.to_string()
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether nobody on the way can read what is sent.
fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(endpoint: &str, token: Option<&str>) -> Result<Hub, Error> {
        Hub::new(HubSettings {
            endpoint: endpoint.to_string(),
            token: token.map(str::to_string),
            ..HubSettings::default()
        })
    }

    #[test]
    fn addresses_keep_what_belongs_to_a_name() {
        let hub = hub("https://mirror.example/hf/", None).unwrap();
        let mut url = hub.place(&[], "a/b");
        segments(&mut url).push("resolve").push("refs/pr/5").extend("ü 100%#?/x.json".split('/'));
        assert_eq!(
            url.as_str(),
            "https://mirror.example/hf/a/b/resolve/refs%2Fpr%2F5/%C3%BC%20100%25%23%3F/x.json"
        );
        assert_eq!(hub.page("a/b"), "https://mirror.example/hf/a/b");
    }

    #[test]
    fn a_token_needs_a_private_way() {
        assert!(hub("https://hub.example", Some("hf_x")).is_ok());
        assert!(hub("http://127.0.0.1:80", Some("hf_x")).is_ok());
        assert!(hub("http://hub.example", None).is_ok());
        for (endpoint, token) in [
            ("http://hub.example", Some("hf_x")),
            ("https://hub.example", Some("hf x")),
            ("https://user:secret@hub.example", None),
            ("ftp://hub.example", None),
            ("hub.example", None),
        ] {
            let error = hub(endpoint, token).err().unwrap().to_string();
            assert!(!error.contains("hf_x"), "{error}");
        }
    }

    #[test]
    fn redirects_do_not_leave_https() {
        let reply = |to: &str| Reply {
            status: 302,
            headers: HeaderMap::from_iter([(header::LOCATION, to.parse().unwrap())]),
            body: Box::new(std::io::empty()),
            address: String::new(),
        };
        let from = Url::parse("https://hub.example/a/b").unwrap();
        let to = |place: &str| redirected(&from, &reply(place)).ok().map(|url| url.to_string());
        assert_eq!(to("/c?d=e").as_deref(), Some("https://hub.example/c?d=e"));
        assert_eq!(to("//cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        assert_eq!(to("http://hub.example/c"), None);
        assert_eq!(to("file:///etc/passwd"), None);
    }
}
