//! Who has signed in on the page. Kept in memory alone: a restart signs everybody out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri};
use provenance::digest::sha256;

use crate::error::ServingError;
use crate::identity::Caller;
use crate::keys::random_hex;

/// A working day.
const LIFETIME_SECONDS: u64 = 12 * 3_600;
/// Beyond so many, the oldest ends.
const MOST_SESSIONS: usize = 10_000;
/// Beyond so many of one key, that key's oldest ends: nobody signs others out by signing in again and again.
const MOST_OF_ONE_KEY: usize = 100;

/// The sessions of one server.
pub struct Sessions {
    /// Whether browsers reach the server over TLS: then the cookie travels on nothing else.
    secure: bool,
    most: usize,
    /// By the digest of the cookie's value.
    open: Mutex<BTreeMap<[u8; 32], Session>>,
}

struct Session {
    caller: Caller,
    ends_at: u64,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(secure: bool) -> Sessions {
        Sessions { secure, most: MOST_SESSIONS, open: Mutex::default() }
    }

    /// Opens a session; the `Set-Cookie` for it. `now` in seconds since 1970.
    pub fn open(&self, caller: &Caller, now: u64) -> Result<String, ServingError> {
        let value = random_hex(32)?;
        let mut open = self.lock();
        open.retain(|_, session| session.ends_at > now);
        let is_own = |session: &Session| session.caller.key_id == caller.key_id;
        let too_many_of_key = open.values().filter(|session| is_own(session)).count() >= MOST_OF_ONE_KEY;
        if too_many_of_key || open.len() >= self.most {
            let candidates = open.iter().filter(|(_, session)| !too_many_of_key || is_own(session));
            if let Some(oldest) = candidates.min_by_key(|(_, session)| session.ends_at).map(|(name, _)| *name)
            {
                open.remove(&oldest);
            }
        }
        let session = Session { caller: caller.clone(), ends_at: now.saturating_add(LIFETIME_SECONDS) };
        open.insert(sha256(value.as_bytes()).0, session);
        Ok(self.cookie(&value, LIFETIME_SECONDS))
    }

    /// Whose session came with the request, if it is still open. The credential that it stands for has to be looked at
    /// again: it may have been revoked meanwhile.
    pub fn caller(&self, headers: &HeaderMap, now: u64) -> Option<Caller> {
        let value = self.value(headers)?;
        let open = self.lock();
        let session = open.get(&sha256(value.as_bytes()).0)?;
        (session.ends_at > now).then(|| session.caller.clone())
    }

    /// Ends the session that came with the request; the `Set-Cookie` that removes the cookie.
    pub fn close(&self, headers: &HeaderMap) -> String {
        if let Some(value) = self.value(headers) {
            self.lock().remove(&sha256(value.as_bytes()).0);
        }
        self.cookie("", 0)
    }

    fn name(&self) -> &'static str {
        // The prefix binds the cookie to this very host, and browsers keep it only over TLS.
        if self.secure { "__Host-eulalia" } else { "eulalia" }
    }

    fn cookie(&self, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", self.name())
    }

    fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.name()).map(|(_, value)| value)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a page of this very server sent the request: browsers say where a request that changes something comes from.
/// Requests that name two origins or hosts, or an origin that is no web page's, are not from here.
pub fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let named = |name| headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().ok());
    let authority = uri.authority().map(|authority| Some(authority.as_str()));
    let mut hosts = authority.into_iter().chain(named(HOST));
    let mut origins = named(ORIGIN);
    let (Some(Some(host)), Some(Some(origin)), None) = (hosts.next(), origins.next(), origins.next()) else {
        return false;
    };
    let is_host = |other: &str| other.eq_ignore_ascii_case(host);
    let is_page = |(scheme, of): (&str, &str)| matches!(scheme, "http" | "https") && is_host(of);
    hosts.all(|other| other.is_some_and(is_host)) && origin.split_once("://").is_some_and(is_page)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Role;

    fn caller() -> Caller {
        let role = Role::User;
        Caller { tenant: "t".into(), key_id: "k".into(), role, scopes: role.scopes(), policy: Arc::default() }
    }

    fn headers(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("other=1; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_session_lasts_until_it_ends() {
        let sessions = Sessions::new(true);
        let cookie = sessions.open(&caller(), 100).unwrap();
        assert!(cookie.starts_with("__Host-eulalia=") && cookie.contains("HttpOnly; SameSite=Strict"));
        assert!(cookie.ends_with("; Secure"));
        let with = headers(&cookie);
        assert_eq!(sessions.caller(&with, 100 + LIFETIME_SECONDS - 1), Some(caller()));
        assert_eq!(sessions.caller(&with, 100 + LIFETIME_SECONDS), None);
        assert_eq!(sessions.caller(&headers("__Host-eulalia=00"), 101), None);
        assert_eq!(sessions.caller(&HeaderMap::new(), 101), None);
        assert!(sessions.close(&with).contains("Max-Age=0"));
        assert_eq!(sessions.caller(&with, 101), None);
    }

    #[test]
    fn sessions_are_bounded() {
        let sessions = Sessions { most: 20, ..Sessions::new(false) };
        let first = headers(&sessions.open(&caller(), 1).unwrap());
        for _ in 0..20 {
            sessions.open(&caller(), 2).unwrap();
        }
        assert_eq!(sessions.lock().len(), 20);
        assert_eq!(sessions.caller(&first, 3), None);
    }

    #[test]
    fn a_key_that_signs_in_again_and_again_signs_nobody_else_out() {
        let sessions = Sessions::new(false);
        let other = Caller { key_id: "other".into(), ..caller() };
        let first = headers(&sessions.open(&other, 1).unwrap());
        for _ in 0..=MOST_OF_ONE_KEY {
            sessions.open(&caller(), 2).unwrap();
        }
        assert_eq!(sessions.lock().len(), MOST_OF_ONE_KEY + 1);
        assert_eq!(sessions.caller(&first, 3), Some(other));
    }

    #[test]
    fn only_this_server_is_the_same_origin() {
        let check = |origin: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::from_iter([(HOST, "127.0.0.1:8480".parse().unwrap())]);
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_same_origin(&headers, &Uri::from_static("/session")), expected, "{origin:?}");
        };
        check(Some("http://127.0.0.1:8480"), true);
        check(Some("https://127.0.0.1:8480"), true);
        for wrong in
            [None, Some("null"), Some("http://127.0.0.1"), Some("http://127.0.0.1:8480.evil.example")]
        {
            check(wrong, false);
        }
        check(Some("evil://127.0.0.1:8480"), false);
        let twice = |name, value: &str| {
            let mut headers = HeaderMap::from_iter([
                (HOST, "127.0.0.1:8480".parse().unwrap()),
                (ORIGIN, "http://127.0.0.1:8480".parse().unwrap()),
            ]);
            headers.append(name, value.parse().unwrap());
            is_same_origin(&headers, &Uri::from_static("/session"))
        };
        assert!(!twice(ORIGIN, "http://evil.example") && !twice(HOST, "evil.example"));
        let headers = HeaderMap::from_iter([
            (HOST, "127.0.0.1:8480".parse().unwrap()),
            (ORIGIN, "http://evil.example".parse().unwrap()),
        ]);
        assert!(!is_same_origin(&headers, &Uri::from_static("http://evil.example/session")));
    }
}
