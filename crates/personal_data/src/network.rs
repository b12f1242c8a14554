//! E-mail addresses (the usual form of RFC 5322, letters of all scripts) and IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use super::{Findings, PersonalData};

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\p{L}\p{N}._%+\-]*[\p{L}\p{N}_%+\-]@(?:[\p{L}\p{N}](?:[\p{L}\p{N}\-]*[\p{L}\p{N}])?\.)+[\p{L}]{2,}")
        .expect("a fixed pattern")
});

static IPV4: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}").expect("a fixed pattern"));

static IPV6: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}").expect("a fixed pattern"));

pub fn find_email_addresses(text: &str, findings: &mut Findings) {
    if !text.contains('@') {
        return;
    }
    for found in EMAIL.find_iter(text) {
        // A sentence may end in a full stop before the address: ". name@site" has none inside.
        let leading = found.as_str().len() - found.as_str().trim_start_matches('.').len();
        findings.add(found.start() + leading..found.end(), PersonalData::EmailAddress);
    }
}

/// Addresses that may lead to a person: private, loopback and broadcast ones lead nowhere.
pub fn find_ip_addresses(text: &str, findings: &mut Findings) {
    for found in IPV4.find_iter(text) {
        let stands_alone = !text[..found.start()]
            .ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '-')
            && !has_more(&text[found.end()..]);
        let address = found.as_str().parse::<Ipv4Addr>().ok();
        if stands_alone
            && address.is_some_and(|address| is_public(address) && !is_version(text, found.start()))
        {
            findings.add(found.range(), PersonalData::IpAddress);
        }
    }
    for found in IPV6.find_iter(text) {
        let groups = found.as_str().split(':').filter(|group| !group.is_empty()).count();
        let has_digit = found.as_str().bytes().any(|byte| byte.is_ascii_digit());
        let stands_alone = !text[..found.start()].ends_with(|c: char| c.is_alphanumeric() || c == ':')
            && !text[found.end()..].starts_with(|c: char| c.is_alphanumeric());
        if stands_alone && groups >= 3 && has_digit && found.as_str().parse::<Ipv6Addr>().is_ok() {
            findings.add(found.range(), PersonalData::IpAddress);
        }
    }
}

/// Whether a number goes on after what was found: `1.2.3.4.5` is no address, `1.2.3.4.` ends a sentence.
fn has_more(after: &str) -> bool {
    let mut after = after.chars();
    match after.next() {
        Some('.' | '-') => after.next().is_some_and(|character| character.is_ascii_digit()),
        Some(character) => character.is_alphanumeric(),
        None => false,
    }
}

fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private() || address.is_loopback() || address.is_broadcast() || address.octets()[0] == 0)
}

fn is_version(text: &str, place: usize) -> bool {
    super::is_announced(
        text,
        place,
        1,
        &["v", "wers", "verz", "верс", "έκδοσ", "vers", "versi", "§", "art", "чл"],
    )
}
