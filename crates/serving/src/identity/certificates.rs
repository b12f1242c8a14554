//! Client certificates: whose they are, by rules of the operator. TLS has verified the chain before anything here looks.

use provenance::digest::sha256;
use rustls_pki_types::CertificateDer;

use crate::settings::ClientIdentity;

/// The rule that a certificate meets, the first in the order of the settings, and the certificate's fingerprint.
pub fn identify<'a>(
    certificate: &CertificateDer<'_>,
    rules: &'a [ClientIdentity],
) -> Option<(&'a ClientIdentity, String)> {
    let fingerprint = sha256(certificate).to_string();
    // Names that TLS itself could not read are none.
    let names = webpki::EndEntityCert::try_from(certificate).map_or_else(
        |_| Vec::new(),
        |certificate| {
            let dns = certificate.valid_dns_names().map(str::to_ascii_lowercase);
            dns.chain(certificate.valid_uri_names().map(String::from)).collect()
        },
    );
    let meets = |rule: &&ClientIdentity| {
        let by_fingerprint = rule.fingerprint.as_ref().is_none_or(|wanted| plain(wanted) == fingerprint);
        let by_name = rule.san.as_ref().is_none_or(|wanted| names.iter().any(|name| is_same(wanted, name)));
        by_fingerprint && by_name
    };
    rules.iter().find(meets).map(|rule| (rule, fingerprint))
}

/// Hexadecimal digits as OpenSSL prints them, with colons and capitals, or as others do.
fn plain(fingerprint: &str) -> String {
    fingerprint.chars().filter(|letter| *letter != ':').map(|letter| letter.to_ascii_lowercase()).collect()
}

/// DNS names know no capitals; URIs do.
fn is_same(wanted: &str, name: &str) -> bool {
    wanted == name || (!wanted.contains(':') && wanted.eq_ignore_ascii_case(name))
}
